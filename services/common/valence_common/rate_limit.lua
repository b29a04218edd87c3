-- Decides one request against several limits, in one atomic step: it is charged to all or to none.
--
-- KEYS holds one key for each limit, ARGV five numbers for each: burst, limit, period, cost, initial.
-- Periods are in microseconds. Every write sets an expiry in the same command.
--
-- A window (burst < 0) counts up to `limit` and ends one period after its first request. `initial`
-- is the count that a new window starts with; -1 means that the caller has to look it up first.
--
-- A rate (burst >= 0) follows GCRA, the generic cell rate algorithm. Each request moves the
-- theoretical arrival time (TAT) forward by one emission interval, period / limit, and is admitted
-- while the TAT is ahead of now by no more than the burst tolerance. A key holds `<tat> <seen>`: how
-- far the TAT was ahead at the time `seen`, measured in emission intervals, that is in requests.
-- (As a time of day, the TAT would leave a double too few digits for fractions.)
--
-- Returns {-1, i} if limit i needs its initial count, else {refused, wait, remaining 1, reset 1, …}:
-- the limit that refused the request, or 0; the microseconds until it is admitted; and for each
-- limit the requests that remain and the microseconds until it is full again.

local ROUNDING = 0.000001 -- of a request: sums of fractions are inexact

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local refused, wait = 0, 0
local states_if_refused, states_if_admitted = {}, {}
local writes, initial_writes = {}, {}

local function set(key, value, lifetime)
  redis.call('SET', key, value, 'PX', math.max(1, math.ceil(lifetime / 1000)))
end

for i, key in ipairs(KEYS) do
  local first = (i - 1) * 5
  local burst, limit = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
  local period, cost = tonumber(ARGV[first + 3]), tonumber(ARGV[first + 4])
  local initial = tonumber(ARGV[first + 5])
  local stored = redis.call('GET', key)
  local used, capacity, retry_after = 0, limit, 0
  local reset_if_refused, reset_if_admitted = 0, 0

  if burst < 0 then
    if not stored and initial < 0 then return {-1, i} end
    used = tonumber(stored or initial)
    local lifetime = redis.call('PTTL', key) * 1000
    if lifetime <= 0 then lifetime = period end
    if cost > 0 and used + cost > capacity then retry_after = lifetime end
    reset_if_refused, reset_if_admitted = lifetime, lifetime
    -- Written even on a refusal, or each refused request would look the initial count up again.
    if not stored and initial > 0 then initial_writes[key] = {initial, lifetime} end
    writes[i] = {string.format('%.0f', math.max(0, used + cost)), lifetime}
  else
    local emission_interval = period / limit
    local burst_tolerance = limit + burst -- in emission intervals, as `tat`
    local tat, seen = string.match(stored or '0 0', '^(%S+) (%S+)$')
    tat = math.max(0, tat - math.max(0, now - seen) / emission_interval)
    local new_tat = tat + cost
    used, capacity = tat, burst_tolerance
    retry_after = math.max(0, (new_tat - burst_tolerance - ROUNDING) * emission_interval)
    reset_if_refused, reset_if_admitted = tat * emission_interval, new_tat * emission_interval
    writes[i] = {string.format('%.17g %.0f', new_tat, now), reset_if_admitted}
  end

  if retry_after > 0 and retry_after >= wait then refused, wait = i, retry_after end
  states_if_refused[2 * i - 1] = math.max(0, math.floor(capacity - used + ROUNDING))
  states_if_refused[2 * i] = math.ceil(reset_if_refused)
  states_if_admitted[2 * i - 1] = math.max(0, math.floor(capacity - used - cost + ROUNDING))
  states_if_admitted[2 * i] = math.ceil(reset_if_admitted)
end

if refused > 0 then
  for key, write in pairs(initial_writes) do set(key, write[1], write[2]) end
  return {refused, math.ceil(wait), unpack(states_if_refused)}
end
for i, key in ipairs(KEYS) do set(key, writes[i][1], writes[i][2]) end
return {0, 0, unpack(states_if_admitted)}
