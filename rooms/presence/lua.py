"""Lua scripts of presence in Redis, each one step.

``redis_store.py`` explains the keys. A user is stored as ``[sort_text, user]``: the order of members uses
the name of the user's first connection, also when a later connection has another name. The owner of a
connection in grace begins with ``~``.
"""

from __future__ import annotations

ADD = """
local users, order, connections, node = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('EXISTS', KEYS[5]) == 1 then return 'closed' end
local id, user, sort_text, from, beyond = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local connection, owner, entry = ARGV[6], ARGV[7], ARGV[8]
local limit, unique = tonumber(ARGV[9]), ARGV[10] == '1'
local first = redis.call('HEXISTS', users, id) == 0
if first then
  if unique and #redis.call('ZRANGEBYLEX', order, '[' .. from, '(' .. beyond, 'LIMIT', 0, 1) > 0 then
    return 'name_in_use'
  end
  if limit >= 0 and redis.call('HLEN', users) >= limit then return 'full' end
  redis.call('HSET', users, id, user)
  redis.call('ZADD', order, 0, sort_text)
end
local present = redis.call('HGETALL', connections)
for i = 1, #present, 2 do
  if string.sub(present[i + 1], 1, 1) == '~' then redis.call('HDEL', connections, present[i]) end
end
redis.call('HSET', connections, connection, owner)
redis.call('SADD', node, entry)
return first and 'first' or 'present'
"""

START_GRACE = """
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if owner and string.sub(owner, 1, 1) ~= '~' then redis.call('HSET', KEYS[1], ARGV[1], '~' .. owner) end
"""

# With a node in ARGV[4] it is part of a sweep, which ends before that process registers again.
REMOVE = """
local users, order, connections, node = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, connection, entry, swept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if swept ~= '' and not redis.call('ZSCORE', KEYS[5], swept) then return 0 end
redis.call('SREM', node, entry)
if redis.call('HDEL', connections, connection) == 0 then return 0 end
if redis.call('HLEN', connections) > 0 then return 0 end
local user = redis.call('HGET', users, id)
if not user then return 0 end
redis.call('ZREM', order, cjson.decode(user)[1])
return redis.call('HDEL', users, id)
"""

PAGE = """
local found = {redis.call('HLEN', KEYS[2])}
for _, sort_text in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  local id = string.sub(sort_text, string.find(sort_text, '\\0', 1, true) + 1)
  found[#found + 1] = redis.call('HGET', KEYS[2], id)
end
return found
"""

FIND = """
local found = {}
for i = 1, #ARGV, 2 do
  local sort_text = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. ARGV[i], '(' .. ARGV[i + 1], 'LIMIT', 0, 1)[1]
  local id = sort_text and string.sub(sort_text, string.find(sort_text, '\\0', 1, true) + 1)
  found[#found + 1] = id and redis.call('HGET', KEYS[2], id) or ''
end
return found
"""

CLOSE = """
if redis.call('HLEN', KEYS[1]) > 0 then return 0 end
redis.call('SET', KEYS[2], '1', 'EX', ARGV[1])
return 1
"""

# Leases use the clock of Redis, so that the clocks of the processes do not matter.
_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

RENEW = (
    _NOW
    + """
-- If the clock was set back, the lease of a dead process would last too long.
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now + ARGV[2] + ARGV[3], '+inf')) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], node)
end
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {'swept'} end
local had = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
if had then return {'kept', tostring(had - now)} end
return {'begun'}
"""
)

EXPIRE = (
    _NOW
    + """
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if lease and tonumber(lease) > now + ARGV[2] then redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1]) end
"""
)

# A sweep has a time limit; if the sweeping process dies, another one continues.
EXPIRED = (
    _NOW
    + """
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], node)
  redis.call('ZADD', KEYS[2], 0, node)
end
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
for _, node in ipairs(ended) do redis.call('ZADD', KEYS[2], now + ARGV[1], node) end
return ended
"""
)
