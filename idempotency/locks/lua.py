"""The scripts of the Redis lock backend; Redis runs each of them alone."""

from __future__ import annotations

from ..scripts import Script

_WAKE = """
local function wake(queue, bell)
    local first = call('ZRANGE', queue, 0, 0)[1]
    if first then
        call('RPUSH', bell .. first, 1)
        call('PEXPIRE', bell .. first, 1000)
    end
end
"""

ACQUIRE = Script("""
local call = redis.call
local lock, index, last, queue, patient = unpack(KEYS)
local owner, name, lease, patience, waited = unpack(ARGV)
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if call('EXISTS', lock, queue) > 0 then
    local function drop(least, most)
        for _, gone in ipairs(call('ZRANGEBYSCORE', patient, least, most)) do
            call('ZREM', queue, gone)
            call('ZREM', patient, gone)
        end
    end
    drop('-inf', now)
    drop('(' .. now + patience, '+inf')
    if waited then
        call('ZADD', queue, 'NX', now - waited, owner)
        call('ZADD', patient, now + patience, owner)
        call('PEXPIRE', queue, patience * 2)
        call('PEXPIRE', patient, patience * 2)
    end
    local value = call('GET', lock)
    if value and string.match(value, ' (.*) ') ~= owner then
        return {call('PTTL', lock)}
    end
    local first = call('ZRANGE', queue, 0, 0)[1]
    if not value and first and first ~= owner then
        return {(call('ZSCORE', patient, first) or now) - now}
    end
    call('ZREM', queue, owner)
    call('ZREM', patient, owner)
end

local token = string.format('%.0f', time[1] * 1000000 + time[2])
local before = tonumber(call('GETSET', last, token) or 0)
if tonumber(token) <= before then
    token = string.format('%.0f', before + 1)
    call('SET', last, token)
end
call('SET', lock, token .. ' ' .. owner .. ' ' .. string.format('%.0f', now), 'PX', lease)
call('ZREMRANGEBYSCORE', index, '-inf', now)
call('ZADD', index, now + lease, name)
return token
""")
"""
Give the token, or {milliseconds}: until the lease, or the turn of another, is over.

Only those who queue say for how long they have *waited*. Nobody is patient for longer than
*patience*, unless the clock went back; those who live then line up anew at their next try.

A token is the time in microseconds, so that it grows even if Redis has lost all it knew, and
greater than the last one, so that it grows even if the clock does not.
"""

RENEW = Script("""
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lost = {}
for place = 1, #KEYS - 1 do
    local lease, name, held = unpack(ARGV, place * 3 - 2, place * 3)
    local value = call('GET', KEYS[place + 1])
    if value and string.sub(value, 1, #held) == held then
        call('PEXPIRE', KEYS[place + 1], lease)
        call('ZADD', KEYS[1], now + lease, name)
    else
        lost[#lost + 1] = place
    end
end
return lost
""")
"""Give the places, from 1, of the locks that were lost."""

RELEASE = Script(
    "local call = redis.call"
    + _WAKE
    + """
local lock, index, queue = unpack(KEYS)
local held, name, bell = unpack(ARGV)
local value = call('GET', lock)
if not value or string.sub(value, 1, #held) ~= held then
    return 0
end
call('DEL', lock)
call('ZREM', index, name)
wake(queue, bell)
return 1
"""
)
"""Give 1 if the lock was held until now, else 0."""

WITHDRAW = Script(
    "local call = redis.call"
    + _WAKE
    + """
local lock, index, queue, patient = unpack(KEYS)
local owner, name, bell = unpack(ARGV)
call('ZREM', queue, owner)
call('ZREM', patient, owner)
call('DEL', bell .. owner)
local value = call('GET', lock)
if value and string.match(value, ' (.*) ') == owner then
    call('DEL', lock)
    call('ZREM', index, name)
    value = nil
end
if not value then
    wake(queue, bell)
end
return 1
"""
)
"""Leave nothing of an owner, and pass on a call that had woken it up in vain."""

LIVE = Script("""
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local found = {string.format('%.0f', now)}
local names = call('ZRANGE', KEYS[1], 0, ARGV[3] - 1, 'WITHSCORES')
for place = 1, #names, 2 do
    local name = names[place]
    local value = call('GET', ARGV[1] .. name)
    if value then
        local waiters = call('ZCARD', ARGV[2] .. name)
        found[#found + 1] = value .. ' ' .. names[place + 1] .. ' ' .. waiters .. ' ' .. name
    end
end
return found
""")
"""
Give the time, and for each lock its value, when its lease is over, its waiters and its name.

That is one word for each, as a client takes long to read many.
"""
