local base, digest, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local NEVER, TOMBSTONE, USER_FENCE, CLOCK_SKEW, SLACK = 253402300800, 60, 3600, 300, 3600
local MAX_TOUCH_INTERVAL, TOUCHES_PER_IDLE = 900, 20
local HEAD = '<dddddddddBBc0Bc0'
local ABSENT = '\0\0\0\0\0\0\0\0'
