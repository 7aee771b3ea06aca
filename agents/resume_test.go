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
		found      bool
		record     job.Record
		want       step
		interrupts int
	}{
		"no record":                            {want: stepRun},
		"no record, at most once":              {retry: never, want: stepRun},
		"completed by another attempt":         {found: true, record: job.Record{Nonce: ours, State: job.Completed, Attempt: them}, want: stepAck},
		"completed, at most once":              {retry: never, found: true, record: job.Record{Nonce: ours, State: job.Completed}, want: stepAck},
		"completed under an older use of ID":   {found: true, record: job.Record{Nonce: theirs, State: job.Completed, Interrupts: 4}, want: stepRun},
		"older use of ID that lost its job":    {found: true, record: job.Record{Nonce: theirs, State: job.Active}, want: stepRun},
		"started by us, the answer lost":       {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: us, Interrupts: 3}, want: stepResume, interrupts: 3},
		"started by us, at most once":          {retry: never, found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: us}, want: stepResume},
		"interrupted":                          {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them}, want: stepRun, interrupts: 1},
		"interrupted for the ninth time":       {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them, Interrupts: 8}, want: stepRun, interrupts: 9},
		"interrupted for the tenth time":       {found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them, Interrupts: 9}, want: stepAbort, interrupts: 10},
		"interrupted, at most once":            {retry: never, found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them}, want: stepAbort, interrupts: 1},
		"interrupted, for ever":                {retry: job.Retry{Interrupts: job.Forever}, found: true, record: job.Record{Nonce: ours, State: job.Active, Attempt: them, Interrupts: 1000}, want: stepRun, interrupts: 1001},
		"a state that this release cannot use": {found: true, record: job.Record{Nonce: ours, State: job.Waiting}, want: stepLeave},
	} {
		t.Run(name, func(t *testing.T) {
			spec := job.Spec{Nonce: ours, Retry: row.retry}
			got, interrupts := resume(spec, us, row.record, row.found)
			if got != row.want || interrupts != row.interrupts && got != stepAck && got != stepLeave {
				t.Errorf("got step %d with %d interrupts, want %d with %d", got, interrupts, row.want, row.interrupts)
			}
		})
	}
}
