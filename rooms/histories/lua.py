"""Lua scripts of the Redis history, each one step for any number of writers.

All scripts get the same five keys of a room and the same three first arguments: ``meta`` (a hash: epoch,
seq, and the run of Redis in which the epoch began), ``log`` (a list of entries without holes, so that the
index of an entry gives its number), ``used`` (a hash: number and time by sender and key), ``order`` (a list
of those keys, oldest first) and ``state`` (a hash by event). An entry is a time and a message, a line each.
"""

from __future__ import annotations

# Times on the wire sort as text. The run changes when Redis restarts and when a replica takes over: both may
# have lost the last messages, and new messages with the same numbers must have another epoch.
_BEGIN = """
local meta, log, used, order, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('HGET', meta, 'run') ~= run then
  if redis.call('EXISTS', meta) == 0 then redis.call('DEL', log, used, order, state) end
  redis.call('HSET', meta, 'run', run, 'epoch', ARGV[1])
end
local max_entries, oldest = tonumber(ARGV[2]), ARGV[3]
local seq = tonumber(redis.call('HGET', meta, 'seq') or '0')
local length = redis.call('LLEN', log)
local function trim()
  while length > 0 do
    local time = string.match(redis.call('LINDEX', log, 0), '^[^\\n]*')
    if length <= max_entries and time >= oldest then return end
    redis.call('LPOP', log)
    length = length - 1
  end
end
local function sent(key)
  local first, time = string.match(redis.call('HGET', used, key) or '', '^(%d+)\\n(.*)$')
  return tonumber(first), time
end
local function entries(first, last)
  if first > last then return {} end
  return redis.call('LRANGE', log, first - seq - 1, last - seq - 1)
end
trim()
"""

# Each append with a key deletes a few expired keys, so that these do not pile up.
APPEND = (
    _BEGIN
    + """
local key, entry, time_sent, expired = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local seconds, idempotency_ttl, event, removes = ARGV[8], ARGV[9], ARGV[10], ARGV[11] == '1'
if key ~= '' then
  for _ = 1, 100 do
    local oldest_key = redis.call('LINDEX', order, 0)
    if not oldest_key then break end
    local first, time = sent(oldest_key)
    if first and (first > seq - length or time >= expired) then break end
    redis.call('HDEL', used, oldest_key)
    redis.call('LPOP', order)
  end
  local first, time = sent(key)
  if first and first > seq - length then return {'duplicate', first, entries(first, first)[1]} end
  if first then return {'expired', first, time} end
end
if event ~= '' and not removes and redis.call('HEXISTS', state, event) == 0
    and redis.call('HLEN', state) >= tonumber(ARGV[12]) then
  return {'full'}
end
seq = redis.call('HINCRBY', meta, 'seq', 1)
length = redis.call('RPUSH', log, entry)
if key ~= '' then
  redis.call('HSET', used, key, seq .. '\\n' .. time_sent)
  redis.call('RPUSH', order, key)
  redis.call('EXPIRE', used, idempotency_ttl)
  redis.call('EXPIRE', order, idempotency_ttl)
end
if event ~= '' then
  if removes then
    redis.call('HDEL', state, event)
  else
    local before = redis.call('HGET', state, event)
    local first = before and string.match(before, '^%d+') or seq
    redis.call('HSET', state, event, first .. '\\n' .. seq .. '\\n' .. entry)
  end
end
trim()
redis.call('EXPIRE', log, seconds)
return {'new', seq}
"""
)

# The newest messages, or all after a number of the same epoch.
SNAPSHOT = (
    _BEGIN
    + """
local epoch = redis.call('HGET', meta, 'epoch')
local count = tonumber(ARGV[4])
local missed = -1
if ARGV[5] == epoch then missed = seq - tonumber(ARGV[6]) end
local recovered = missed >= 0 and missed <= tonumber(ARGV[7]) and missed <= length
if recovered then count = missed end
if count > length then count = length end
return {epoch, seq, recovered and 1 or 0, entries(seq - count + 1, seq), redis.call('HVALS', state)}
"""
)

# Messages between two numbers, neither included: the oldest, or with '0' at the end the newest.
PAGE = (
    _BEGIN
    + """
local first = math.max(seq - length + 1, tonumber(ARGV[5]) + 1)
local last = math.min(seq, tonumber(ARGV[4]) - 1)
local found = math.max(0, last - first + 1)
local count = math.min(found, tonumber(ARGV[6]))
if ARGV[7] == '1' then last = first + count - 1 else first = last - count + 1 end
return {first, found > count and 1 or 0, entries(first, last)}
"""
)

FIND = (
    _BEGIN
    + """
return {sent(ARGV[4])}
"""
)
