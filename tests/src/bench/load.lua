-- A script for wrk. Sends the requests of a file one after the other, over and over: in each line
-- method, path, token and body, parted by tabs, token and body possibly empty. At the end it
-- prints one line of JSON; times are in milliseconds.

local prepared, current = {}, 0

function init(arguments)
   for line in io.lines(arguments[1]) do
      local method, path, token, body = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
      local headers = {}
      if token ~= "" then headers["Authorization"] = "Bearer " .. token end
      if body ~= "" then headers["Content-Type"] = "application/json" else body = nil end
      prepared[#prepared + 1] = wrk.format(method, path, headers, body)
   end
end

function request()
   current = current % #prepared + 1
   return prepared[current]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p90_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,' ..
      '"errors":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}}\n',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
      latency.max / 1e3,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
