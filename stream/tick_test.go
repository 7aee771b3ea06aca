package stream

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/cron"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

func repeat(t *testing.T, q *Queue, r Recurring) job.Nonce {
	t.Helper()
	spec := newEntry().Spec
	if err := q.Repeat(t.Context(), r, spec); err != nil {
		t.Fatal(err)
	}
	return spec.Nonce
}

// fired is the timer of a chain, as it would be given out.
func fired(t *testing.T, q *Queue, timer Timer) (Due, bool) {
	t.Helper()
	msg, err := q.last(t.Context(), q.names.eitherWay(timer))
	if err != nil {
		return Due{}, false
	}
	last, _ := time.Parse(time.RFC3339, msg.Header.Get(headerLast))
	return Due{Timer: timer, At: due(msg.Header), sequence: msg.Sequence, last: last}, true
}

// tickIDs lists the jobs that a recurring job has put and nobody has begun.
func tickIDs(t *testing.T, q *Queue) (ids []string) {
	t.Helper()
	for _, subject := range []string{q.names.jobs(), q.names.subject("later.*.*")} {
		found, err := q.read(t.Context(), q.names.stream(), subject, 1, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range found {
			_, id, err := q.names.parseJob(message.Subject)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	return ids
}

// A week of ticks around each change of the clock: every tick of the schedule has
// one job, whoever dies and whoever else looks after its timer.
func TestWeeksWhereClocksChange(t *testing.T) {
	for zone, weeks := range map[string][2]string{
		"Europe/Berlin":    {"2026-03-26", "2026-10-22"},
		"America/New_York": {"2026-03-05", "2026-10-29"},
	} {
		for expression, perWeek := range map[string]int{"30 2 * * *": 7, "30 1,2,3 * * *": 21, "0 * * * *": 0, "0 12 * * MON-FRI": 5} {
			if zone != "Europe/Berlin" && expression == "0 * * * *" {
				continue // many, and no different
			}
			for i, day := range weeks {
				inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
					r := Recurring{Name: "r", Expression: expression, Zone: zone}
					timer := cronTimer("r", repeat(t, q, r))
					schedule, err := cron.Parse(expression, zone)
					if err != nil {
						t.Fatal(err)
					}
					location, _ := time.LoadLocation(zone)
					begin, _ := time.ParseInLocation(time.DateOnly, day, location)
					end := begin.AddDate(0, 0, 7)
					if err := q.publish(t.Context(), r.chain(q.names, timer.Nonce, schedule.Next(time.Time{}, begin), time.Time{})); err != nil {
						t.Fatal(err)
					}
					n := 0
					for due, _ := fired(t, q, timer); due.At.Before(end); due, _ = fired(t, q, timer) {
						n++
						due.Fired = due.At.Add(-tickLead)
						for range 1 + n%2 { // the second time as if it had died before it acked the first
							if err := q.Tick(t.Context(), due, time.Time{}); err != nil {
								t.Fatal(err)
							}
						}
						if n > 1000 {
							t.Fatal("the chain does not go on")
						}
					}
					var want []string
					for tick := schedule.Next(time.Time{}, begin); tick.Before(end); tick = schedule.Next(time.Time{}, tick) {
						want = append(want, string(tickID("r", tick)))
					}
					if expression == "0 * * * *" { // an hour less in spring, one more in autumn
						perWeek = []int{166, 168}[i]
					}
					if len(want) != perWeek {
						t.Errorf("%s in %s from %s: %d ticks, want %d", expression, zone, day, len(want), perWeek)
					}
					if got := tickIDs(t, q); !slices.Equal(got, want) {
						t.Errorf("%s in %s from %s: put\n%v, want\n%v", expression, zone, day, got, want)
					}
				})
			}
		}
	}
}

// However many look after a timer at once, and after it was looked after, its
// tick has one job and one successor.
func TestTickIsPutOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		timer := cronTimer("r", repeat(t, q, Recurring{Name: "r", Expression: "@hourly"}))
		queues := []*Queue{q, createQueue(t, s.Connect(t), Config{}), createQueue(t, s.Connect(t), Config{})}
		entries, err := q.crons.List(t.Context(), q.names.cron("*"))
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		each := func(f func(*Queue) error) {
			for _, q := range queues {
				all.Go(func() {
					if err := f(q); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		each(func(q *Queue) error { return q.beginChain(t.Context(), entries[0].Value, entries[0].Written) })
		for n := range 20 {
			due, _ := fired(t, q, timer)
			due.Fired = due.At.Add(-tickLead)
			each(func(q *Queue) error { return q.Tick(t.Context(), due, time.Time{}) })
			want := []string{string(tickID("r", due.At))}
			if got := tickIDs(t, q); !slices.Equal(got, want) {
				t.Fatalf("tick %d put %v, want %v", n, got, want)
			}
			// The job is performed and forgotten before the timer is given out again.
			if _, err := q.Pull(t.Context(), tickID("r", due.At), q.names.tickNonce("r", due.At)); err != nil {
				t.Fatal(err)
			}
			each(func(q *Queue) error { return q.Tick(t.Context(), due, time.Time{}) })
			each(func(q *Queue) error { return q.beginChain(t.Context(), entries[0].Value, entries[0].Written) })
			wantMessages(t, q, 1) // the next timer
		}
	})
}

// A timer that cannot be stored ends the watch, to be tried again, when all others were
// seen to; a recurring job that is illegal does not, for it will be no other.
func TestKeepRecurringFails(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		if _, err := q.crons.Create(t.Context(), q.names.cron("broken"), Recurring{Name: "broken", Expression: "never"}, kv.Forever); err != nil {
			t.Fatal(err)
		}
		timer := cronTimer("sound", repeat(t, q, Recurring{Name: "sound", Expression: "@yearly"}))
		keep := func(d time.Duration) {
			t.Helper()
			begin := time.Now()
			if err := q.KeepRecurring(t.Context()); err == nil || time.Since(begin) != d {
				t.Errorf("%v after %v, want an error after %v", err, time.Since(begin), d)
			}
		}
		edit(t, q, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1 })
		keep(0)
		edit(t, q, func(c *jetstream.StreamConfig) { c.MaxMsgSize = -1 })
		keep(chainAgain)
		if _, stored := fired(t, q, timer); !stored {
			t.Error("the timer is not stored")
		}
	})
}

func TestTicks(t *testing.T) {
	hourly, err := cron.Parse("@hourly", "")
	if err != nil {
		t.Fatal(err)
	}
	secondly, err := cron.Parse("@every 1s", "")
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.DateTime, "2026-03-04 "+text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	tests := map[string]struct {
		r                 Recurring
		s                 cron.Schedule
		since, first, now string
		want              string // the first, the last and the number of ticks
		next              string
	}{
		"in time":             {Recurring{}, hourly, "01:30:00", "03:00:00", "02:59:58", "03:00:00 03:00:00 1", "04:00:00"},
		"a little late":       {Recurring{}, hourly, "01:30:00", "03:00:00", "03:00:50", "03:00:00 03:00:00 1", "04:00:00"},
		"fired too early":     {Recurring{}, hourly, "01:30:00", "03:00:00", "02:59:57", "0", "03:00:00"},
		"missed, last":        {Recurring{}, hourly, "01:30:00", "03:00:00", "07:30:00", "07:00:00 07:00:00 1", "08:00:00"},
		"missed, none":        {Recurring{Missed: MissedNone}, hourly, "01:30:00", "03:00:00", "07:30:00", "0", "08:00:00"},
		"missed, all":         {Recurring{Missed: MissedAll}, hourly, "01:30:00", "03:00:00", "07:30:00", "03:00:00 07:00:00 5", "08:00:00"},
		"missed, one is due":  {Recurring{}, hourly, "01:30:00", "03:00:00", "07:00:10", "07:00:00 07:00:00 1", "08:00:00"},
		"none, one is due":    {Recurring{Missed: MissedNone}, hourly, "01:30:00", "03:00:00", "07:00:10", "07:00:00 07:00:00 1", "08:00:00"},
		"before a resumption": {Recurring{}, hourly, "05:30:00", "03:00:00", "07:30:00", "07:00:00 07:00:00 1", "08:00:00"},
		"none since":          {Recurring{}, hourly, "07:10:00", "03:00:00", "07:30:00", "0", "08:00:00"},
		"paused":              {Recurring{Paused: true}, hourly, "01:30:00", "03:00:00", "02:59:58", "0", "04:00:00"},
		"alone, too early":    {Recurring{Alone: true}, hourly, "01:30:00", "03:00:00", "02:59:59", "0", "03:00:00"},
		"many":                {Recurring{}, secondly, "01:30:00", "03:00:00", "03:00:15", "03:00:00 03:00:17 18", "03:00:18"},
		"many, missed":        {Recurring{}, secondly, "01:30:00", "03:00:00", "05:00:00", "04:59:00 05:00:02 63", "05:00:03"},
		"many, all":           {Recurring{Missed: MissedAll}, secondly, "01:30:00", "03:00:00", "05:00:00", "03:00:00 03:01:39 100", "03:01:40"},
	}
	for name, test := range tests {
		test.r.Created = at("00:00:00")
		ticks, next := test.r.ticks(test.s, at(test.since), at(test.first), at(test.now))
		got := strings.Builder{}
		if len(ticks) > 0 {
			got.WriteString(ticks[0].Format(time.TimeOnly) + " " + ticks[len(ticks)-1].Format(time.TimeOnly) + " ")
		}
		got.WriteString(strconv.Itoa(len(ticks)))
		if got.String() != test.want || next.Format(time.TimeOnly) != test.next {
			t.Errorf("%s: ticks %s, next %s; want %s, %s", name, got.String(), next.Format(time.TimeOnly), test.want, test.next)
		}
	}
}

func TestRepeatRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for want, r := range map[string]Recurring{
			"illegal recurring job":     {Name: "a.b", Expression: "@hourly"},
			"must be five fields":       {Name: "a", Expression: "hourly"},
			"unknown time zone":         {Name: "a", Expression: "@hourly", Zone: "Mars"},
			"must be 100 years at most": {Name: "a", Expression: "@hourly", Within: math.MaxInt64},
			"must not be negative":      {Name: "a", Expression: "@hourly", Within: -1},
			"must be \"all\", \"none\"": {Name: "a", Expression: "@hourly", Missed: "some"},
		} {
			if err := q.Repeat(t.Context(), r, newEntry().Spec); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want it to say %s", err, want)
			}
		}
		for _, err := range []error{
			q.PauseRecurring(t.Context(), "a", true), q.RemoveRecurring(t.Context(), "a"),
			func() error { _, err := q.RunRecurring(t.Context(), "a"); return err }(),
		} {
			if !errors.Is(err, ErrNoRecurring) {
				t.Errorf("%v, want ErrNoRecurring", err)
			}
		}
	})
}

// A tick whose job was performed before its recurring job was replaced is put
// again as the same job, which is then found to be done.
func TestTickOfAReplacedJobIsTheSame(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		r := Recurring{Name: "r", Expression: "@hourly"}
		var specs []job.Spec
		for range 2 {
			timer := cronTimer("r", repeat(t, q, r))
			if err := q.publish(t.Context(), r.chain(q.names, timer.Nonce, time.Now().Add(time.Hour).Truncate(time.Hour), time.Time{})); err != nil {
				t.Fatal(err)
			}
			due, _ := fired(t, q, timer)
			due.Fired = due.At.Add(-tickLead)
			if err := q.Tick(t.Context(), due, time.Time{}); err != nil {
				t.Fatal(err)
			}
			pulled, err := q.Pull(t.Context(), tickID("r", due.At), job.Nonce{})
			if err != nil {
				t.Fatal(err)
			}
			spec, err := pulled.Spec()
			if err != nil {
				t.Fatal(err)
			}
			specs = append(specs, spec)
		}
		if specs[0].Nonce != specs[1].Nonce || !specs[1].Again {
			t.Errorf("put as %+v, then as %+v", specs[0], specs[1])
		}
	})
}

// Ticks that are made up for at once take several batches where their jobs are more
// messages than the server stores in one.
func TestTicksOfLargeCompositions(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		var calls []job.Call
		for range 100 {
			calls = append(calls, composed(job.FormParallel, padded(inlineParts, "a")))
		}
		spec := entryOf("", composed(job.FormParallel, calls...)).Spec
		r := Recurring{Name: "r", Expression: "* * * * *", Missed: MissedAll, Within: Duration(time.Hour)}
		if err := q.Repeat(t.Context(), r, spec); err != nil {
			t.Fatal(err)
		}
		first := time.Now().Add(time.Minute)
		timer := cronTimer("r", spec.Nonce)
		if err := q.publish(t.Context(), r.chain(q.names, spec.Nonce, first, time.Time{})); err != nil {
			t.Fatal(err)
		}
		const ticks = 15
		time.Sleep(ticks*time.Minute + 30*time.Second)
		now, batches := time.Now(), 0
		for due, _ := fired(t, q, timer); due.At.Before(now); due, _ = fired(t, q, timer) {
			if batches++; batches > ticks {
				t.Fatal("the chain does not go on")
			}
			if err := q.Tick(t.Context(), due, now); err != nil {
				t.Fatal(err)
			}
			next, _ := fired(t, q, timer)
			if before := next.At.Add(-time.Minute); !next.last.Equal(before) {
				t.Errorf("the last tick before %v is %v", next.At, next.last)
			}
		}
		for i := range ticks {
			if !isStored(t, q, tickID("r", first.Add(time.Duration(i)*time.Minute))) {
				t.Errorf("tick %d has no job", i)
			}
		}
		if batches != 2 {
			t.Errorf("%d batches, want 2", batches)
		}
	})
}
