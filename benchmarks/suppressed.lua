-- As bench/submit.lua, to a million recipients of whom none is suppressed.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local before = '{"channel":"email","priority":"medium","recipient":"reader-'
local after = '@example.com","content":{"subject":"Hello","body":"It works."}}'

local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() others = 0 end
function request() return wrk.format(nil, nil, nil, before .. math.random(1000000) .. after) end
function response(status) if status ~= 202 then others = others + 1 end end

function done(summary)
  local others = 0
  for _, thread in ipairs(threads) do others = others + thread:get("others") end
  io.write(string.format('\n{"requests":%d,"duration_us":%d,"others":%d}\n',
    summary.requests, summary.duration, others))
end
