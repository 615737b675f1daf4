"""
The steps of the Redis store, one script each.

A record is a hash. Its token has 19 digits, which compare as strings: a number of Lua would round
it. A step that wrote leaves its *mark* on the record, so that its repetition knows it by that.
"""

from __future__ import annotations

from ..scripts import Script

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function keep(milliseconds)
    if tonumber(milliseconds) > 0 then
        redis.call('PEXPIRE', KEYS[1], milliseconds)
    else
        redis.call('PERSIST', KEYS[1])
    end
end
local function ends_after(milliseconds)
    return string.format('%.0f', now + milliseconds)
end
"""

_SEEN = """
local seen = redis.call('HMGET', KEYS[1], 'state', 'token', 'attempt', 'fingerprint', 'ends_at',
    'status', 'headers', 'body', 'outline', 'origin', 'mark')
local left = seen[5] and string.format('%.0f', seen[5] - now)
local function show(verdict)
    return {verdict, seen[1], seen[2], seen[3], seen[4], left, unpack(seen, 6, 10)}
end
"""

CLAIM = Script(
    _NOW
    + _SEEN
    + """
local token, mark, lease, kept, fingerprint, take_over, unconfirmed = unpack(ARGV, 1, 7)
local attempt = 1
local abandoned = false
if seen[1] then
    local running = seen[1] == 'in_progress'
    if running and seen[2] == token and (seen[11] == mark or unconfirmed == '1') then
        return {'claimed', seen[3], 0}
    end
    local same = seen[4] == fingerprint or seen[4] == '' or fingerprint == ''
    abandoned = running and tonumber(left) <= 0
    if not (seen[1] == 'released' or (abandoned and same and take_over == '1')) then
        return show('seen')
    end
    if token <= seen[2] then
        return {'behind', seen[2]}
    end
    attempt = seen[3] + 1
end
redis.call('HSET', KEYS[1], 'attempt', attempt, 'mark', mark, 'ends_at', ends_after(lease),
    unpack(ARGV, 8))
redis.call('HDEL', KEYS[1], 'status', 'headers', 'body')
keep(kept)
return {'claimed', attempt, abandoned and 1 or 0}
"""
)
"""
Claim the record if it is absent, released or, if asked, abandoned; the token must be greater.

It begins with what a full Redis refuses, and the other steps with what it lets pass: Redis asks
for memory at the first write of a script only, and what has begun is to come to its end.
"""

SETTLE = Script(
    _NOW
    + """
local token, from, mark, kept, revive = unpack(ARGV, 1, 5)
local seen = redis.call('HMGET', KEYS[1], 'state', 'token', 'mark')
if seen[1] and seen[2] >= token then
    if seen[3] == mark then
        return 1
    end
    if seen[2] ~= token or seen[1] ~= from then
        return 0
    end
elseif revive == '0' then
    return 1
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'mark', mark, unpack(ARGV, 6))
keep(kept)
return 1
"""
)
"""
Write the end of a claim; also if Redis has lost the record, unless that is as good.

A record with a smaller token is one that a fail-over has brought back, and as good as none.
"""

RENEW = Script(
    _NOW
    + """
local token, lease, kept = unpack(ARGV, 1, 3)
local seen = redis.call('HMGET', KEYS[1], 'state', 'token')
local is_known = seen[1] and seen[2] >= token
if is_known and (seen[1] ~= 'in_progress' or seen[2] ~= token) then
    return 0
end
local left = redis.call('PTTL', KEYS[1])
if is_known then
    redis.call('PERSIST', KEYS[1])
    redis.call('HSET', KEYS[1], 'ends_at', ends_after(lease))
else
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'ends_at', ends_after(lease), unpack(ARGV, 4))
end
keep(is_known and left > tonumber(kept) and string.format('%.0f', left) or kept)
return 1
"""
)
"""
Let the lease start anew; also if Redis has lost the record, which nobody has claimed since.

A record with a smaller token is one that a fail-over has brought back, and as good as none.
"""

BLOCK = Script(
    _NOW
    + """
local token, mark = unpack(ARGV)
local seen = redis.call('HMGET', KEYS[1], 'state', 'token', 'ends_at', 'mark')
if seen[4] == mark then
    return 1
end
if seen[1] ~= 'in_progress' or seen[2] ~= token or tonumber(seen[3]) > now then
    return 0
end
keep(0)
redis.call('HSET', KEYS[1], 'state', 'unknown', 'mark', mark)
redis.call('HDEL', KEYS[1], 'ends_at')
return 1
"""
)
"""Turn an abandoned claim into an unknown outcome, which is kept until somebody decides."""

LOOK = Script(
    _NOW
    + _SEEN
    + """
return show('seen')
"""
)
"""Give the record as it is by the clock of Redis."""
