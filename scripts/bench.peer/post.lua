-- wrk: a setting, as a dashboard would make it.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"ElementName":"nightly","ReplicationPriority":4,"DesiredRPO":60,"BandwidthLimit":104857600}'

function done(summary)
    local e = summary.errors
    io.write(string.format("answers %d bad %d rate %.1f\n", summary.requests,
        e.status + e.connect + e.read + e.write + e.timeout,
        summary.requests / summary.duration * 1e6))
end
