-- One notification a request; at the end what happened, as JSON on a line of its own.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"channel":"email","priority":"medium","recipient":"ada@example.com",'
  .. '"content":{"subject":"Hello","body":"It works.","data":{"do":"count"}}}'

local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() others = 0 end
function response(status) if status ~= 202 then others = others + 1 end end

function done(summary, latency)
  local others = 0
  for _, thread in ipairs(threads) do others = others + thread:get("others") end
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, others + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
