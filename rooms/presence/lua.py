"""What is done in Redis in one step each (Lua). The keys are explained in ``redis_store.py``.

A user is kept as ``[place, user]``, since the place by which they are listed is the one of their first
connection's name, whatever a later one is called.
"""

from __future__ import annotations

ADD = """
local users, order, connections, node = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('EXISTS', KEYS[5]) == 1 then return 'closed' end
local id, user, place, from, beyond = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local connection, owner, entry = ARGV[6], ARGV[7], ARGV[8]
local limit, unique = tonumber(ARGV[9]), ARGV[10] == '1'
local first = redis.call('HEXISTS', users, id) == 0
if first then
  if unique and #redis.call('ZRANGEBYLEX', order, '[' .. from, '(' .. beyond, 'LIMIT', 0, 1) > 0 then
    return 'taken'
  end
  if limit >= 0 and redis.call('HLEN', users) >= limit then return 'full' end
  redis.call('HSET', users, id, user)
  redis.call('ZADD', order, 0, place)
end
local present = redis.call('HGETALL', connections)
for i = 1, #present, 2 do
  if string.sub(present[i + 1], 1, 1) == '~' then redis.call('HDEL', connections, present[i]) end
end
redis.call('HSET', connections, connection, owner)
redis.call('SADD', node, entry)
return first and 'first' or 'again'
"""

FADE = """
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if owner and string.sub(owner, 1, 1) ~= '~' then redis.call('HSET', KEYS[1], ARGV[1], '~' .. owner) end
"""

# With a node in ARGV[4] it is a sweep, which ends when that process says everything again.
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
for _, place in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  local id = string.sub(place, string.find(place, '\\0', 1, true) + 1)
  found[#found + 1] = redis.call('HGET', KEYS[2], id)
end
return found
"""

FIND = """
local found = {}
for i = 1, #ARGV, 2 do
  local place = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. ARGV[i], '(' .. ARGV[i + 1], 'LIMIT', 0, 1)[1]
  local id = place and string.sub(place, string.find(place, '\\0', 1, true) + 1)
  found[#found + 1] = id and redis.call('HGET', KEYS[2], id) or ''
end
return found
"""

CLOSE = """
if redis.call('HLEN', KEYS[1]) > 0 then return 0 end
redis.call('SET', KEYS[2], '1', 'EX', ARGV[1])
return 1
"""

# The clock of leases is Redis's own, so that the processes' clocks do not matter.
_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

RENEW = (
    _NOW
    + """
-- Where the clock was set back, that of a process that is dead would last until it is as late again.
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

BURY = (
    _NOW
    + """
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if lease and tonumber(lease) > now + ARGV[2] then redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1]) end
"""
)

# Whoever sweeps has a while for it; if that process dies as well, another goes on.
ENDED = (
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
