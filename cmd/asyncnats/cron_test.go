//go:build unix

package main

import (
	"testing"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

func TestCron(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	contains(t, x.ok("cron", "add", "nightly", "30 3 * * *", "report.build", `{"kind": "sales"}`, "--tz", "Europe/Berlin"), "report.build will be put at ")
	x.ok("cron", "add", "pulse", "@every 90s", "health.check", "--alone", "--missed", "none")
	x.ok("quota", "create", "gpu")
	x.ok("cron", "add", "scan", "@hourly", "disk.scan", "--quota", "gpu", "--priority", "low", "--retry", "3", "--retry-min", "1m", "--limit", "5m", "--within", "30m")
	contains(t, x.ok("cron", "ls"), "scan", "disk.scan", "gpu", "low")
	x.ok("cron", "run", "scan")
	contains(t, x.ok("job", "ls"), "disk.scan")
	x.ok("cron", "rm", "scan")
	contains(t, x.ok("cron", "ls"), "NAME", "nightly", "report.build", "30 3 * * *", "Europe/Berlin", "pulse", "@every 90s")
	contains(t, x.ok("cron", "pause", "nightly"), "is paused")
	contains(t, x.ok("cron", "ls", "--json"), `"paused": true`, `"expression": "30 3 * * *"`, `"next": "`, `"missed": "none"`, `"alone": true`)
	contains(t, x.ok("cron", "run", "nightly"), "cron/nightly/")
	contains(t, x.ok("job", "ls"), "cron/nightly/", "report.build")
	contains(t, x.ok("cron", "resume", "nightly"), "goes on")
	contains(t, x.ok("cron", "rm", "nightly"), "is removed")
	for _, row := range []struct {
		code int
		args []string
	}{
		{exitNotFound, []string{"cron", "rm", "nightly"}},
		{exitNotFound, []string{"cron", "run", "nightly"}},
		{exitUsage, []string{"cron", "add", "x", "@daily", "a", "not json"}},
		{exitFailed, []string{"cron", "add", "x", "at noon", "a"}},
		{exitFailed, []string{"cron", "add", "x", "@daily", "a", "--tz", "Mars"}},
	} {
		if r := x.run("", row.args...); r.code != row.code {
			t.Errorf("%v: %+v, want exit code %d", row.args, r, row.code)
		}
	}
}
