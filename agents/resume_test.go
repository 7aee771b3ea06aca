package agents

import (
	"testing"

	"github.com/asyncnats/asyncnats/job"
)

func TestResume(t *testing.T) {
	us := job.Attempt{Number: 2, Token: 7}
	them := job.Attempt{Number: 1, Token: 6}
	ours, theirs := job.NewNonce(), job.NewNonce()
	never := job.Retry{Never: true}
	for name, row := range map[string]struct {
		retry      job.Retry
		attempt    int // of the message
		late       bool
		found      bool
		record     job.Record
		want       step
		interrupts int
	}{
		"no record":                            {want: stepRun},
		"no record, at most once":              {retry: never, want: stepRun},
		"completed by another attempt":         {found: true, record: job.Record{Nonce: ours, State: job.Completed, Attempt: them}, want: stepAck},
		"completed, at most once":              {retry: never, found: true, record: job.Record{Nonce: ours, State: job.Completed}, want: stepAck},
		"completed under an older use of ID":   {found: true, record: job.Record{Nonce: theirs, State: job.Completed, Tally: job.Tally{Interrupts: 4}}, want: stepRun},
		"older use of ID that lost its job":    {found: true, record: job.Record{Nonce: theirs, State: job.Active}, want: stepRun},
		"started by us, the answer lost":       {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: us, Tally: job.Tally{Interrupts: 3}}, want: stepResume, interrupts: 3},
		"started by us, at most once":          {retry: never, found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: us}, want: stepResume},
		"interrupted":                          {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them}, want: stepRun, interrupts: 1},
		"interrupted for the ninth time":       {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them, Tally: job.Tally{Interrupts: 8}}, want: stepRun, interrupts: 9},
		"interrupted for the tenth time":       {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them, Tally: job.Tally{Interrupts: 9}}, want: stepAbort, interrupts: 10},
		"interrupted, at most once":            {retry: never, found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them}, want: stepAbort, interrupts: 1},
		"interrupted, for ever":                {retry: job.Retry{Interrupts: job.Forever}, found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them, Tally: job.Tally{Interrupts: 1000}}, want: stepRun, interrupts: 1001},
		"retried, due":                         {attempt: 1, found: true, record: job.Record{Nonce: ours, State: job.Retrying, Attempt: them, Message: 1, Tally: job.Tally{Errors: 1, Interrupts: 2}}, want: stepRun, interrupts: 2},
		"retried at once":                      {found: true, record: job.Record{Nonce: ours, State: job.Retrying, Attempt: them}, want: stepRun},
		"retried, the old message":             {found: true, record: job.Record{Nonce: ours, State: job.Retrying, Attempt: them, Message: 1}, want: stepSchedule},
		"retry runs, the old message":          {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them, Message: 1}, want: stepDrop},
		"retry is over, the old message":       {found: true, record: job.Record{Nonce: ours, State: job.Completed, Attempt: them, Message: 1}, want: stepDrop},
		"retry interrupted":                    {attempt: 1, found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them, Message: 1}, want: stepRun, interrupts: 1},
		"cancelled, something owed":            {found: true, record: job.Record{Nonce: ours, State: job.Callbacks, Tally: job.Tally{Interrupts: 1}}, want: stepPay, interrupts: 1},
		"late":                                 {late: true, want: stepExpire},
		"late, an older use of the ID":         {late: true, found: true, record: job.Record{Nonce: theirs, State: job.Completed}, want: stepExpire},
		"late for a retry":                     {late: true, attempt: 1, found: true, record: job.Record{Nonce: ours, State: job.Retrying, Message: 1}, want: stepExpire},
		"begun in time, interrupted":           {late: true, found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them}, want: stepRun, interrupts: 1},
		"late, and completed":                  {late: true, found: true, record: job.Record{Nonce: ours, State: job.Completed}, want: stepAck},
		"waits for another":                    {found: true, record: job.Record{Nonce: ours, State: job.Waiting, Attempt: them, Tally: job.Tally{Interrupts: 1}}, want: stepWait, interrupts: 1},
		"callbacks were added before it began": {found: true, record: job.Record{Nonce: ours, State: job.Pending}, want: stepRun},
		"late, callbacks were added":           {late: true, found: true, record: job.Record{Nonce: ours, State: job.Pending}, want: stepExpire},
		"a state that this release cannot use": {found: true, record: job.Record{Nonce: ours, State: "frozen"}, want: stepLeave},
	} {
		t.Run(name, func(t *testing.T) {
			spec := job.Spec{Nonce: ours, Retry: row.retry, Attempt: row.attempt}
			got, tally := resume(spec, us, row.record, row.found, row.late)
			if got != row.want || tally.Interrupts != row.interrupts && got != stepAck && got != stepLeave {
				t.Errorf("got step %d with %+v, want %d with %d interrupts", got, tally, row.want, row.interrupts)
			}
			if got == stepRun && row.record.Nonce == ours && tally.Errors != row.record.Errors {
				t.Errorf("%d errors are forgotten", row.record.Errors)
			}
		})
	}
}
