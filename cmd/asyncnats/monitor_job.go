package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

type monitorJobCmd struct {
	ID string `arg:"" help:"ID of the job."`
	monitoring
	Queue string `short:"q" placeholder:"NAME" help:"Queue of the job, where the dispatcher had jobs with this ID in several."`
}

// Help is shown below the usage.
func (*monitorJobCmd) Help() string {
	return `Shows every dispatcher's last attempt at the job, while it remembers it. What became of the job in the end: asyncnats job show.`
}

// Run shows the job.
func (c *monitorJobCmd) Run(ctx context.Context, a *app) error {
	id, err := job.ParseID(c.ID)
	if err != nil {
		return err
	}
	return monitor(ctx, a, c.monitoring, "job", dispatcher.Query{ID: id, Queue: c.Queue}, printJobInfo)
}

func printJobInfo(a *app, replies []reply[dispatcher.JobInfo]) {
	w := a.out
	for i, r := range replies {
		heading(w, i, replies)
		j := r.answer
		row(w, "job", j.ID.String())
		row(w, "queue", j.Queue)
		row(w, "agent", j.Agent)
		row(w, "call", j.Call)
		row(w, "quotas", strings.Join(j.Quotas, ", "))
		row(w, "priority", level(j.Priority))
		row(w, "attempt", fmt.Sprint(j.Attempt))
		row(w, "started", clock(j.Started))
		if j.PollID != nil {
			row(w, "poll", fmt.Sprint(*j.PollID))
		}
		if j.Completed == nil {
			row(w, "active", "for "+took(max(0, time.Since(j.Started))))
			continue
		}
		row(w, "completed", fmt.Sprintf("%s, after %s", clock(*j.Completed), took(j.Completed.Sub(j.Started))))
		switch {
		case j.Reassigned:
			row(w, "reassigned", "its lease was lost: another attempt has it, or will")
		case j.Result == nil:
			row(w, "result", "none: it was handed back")
		case j.Failed:
			row(w, "failure", *j.Result)
		default:
			row(w, "result", *j.Result)
		}
	}
}
