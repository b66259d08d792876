-- wrk: the same object again and again.
function done(summary)
    local e = summary.errors
    io.write(string.format("answers %d bad %d rate %.1f\n", summary.requests,
        e.status + e.connect + e.read + e.write + e.timeout,
        summary.requests / summary.duration * 1e6))
end
