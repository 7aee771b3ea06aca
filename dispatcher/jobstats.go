package dispatcher

import (
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// JobStats is what became of the jobs that a dispatcher started in a span of polls,
// and of those that it was performing at the first of them (FEATURES 218). It is
// as of the last poll: jobs that started since are not in it.
type JobStats struct {
	// Started is how many jobs it started. Where a job was attempted more than once
	// each attempt counts.
	Started    int `json:"started"`
	Successful int `json:"successful"`
	Failed     int `json:"failed"`
	// Unknown is how many ended without an outcome, because they were reassigned or
	// handed back, or are not remembered any more.
	Unknown int `json:"unknown"`
	// The extremes are nil where there is no such job. A job that is active has run
	// until now.
	LongestActive      *JobTime `json:"longest_active"`
	ShortestActive     *JobTime `json:"shortest_active"`
	LongestFailed      *JobTime `json:"longest_failed"`
	ShortestFailed     *JobTime `json:"shortest_failed"`
	LongestSuccessful  *JobTime `json:"longest_successful"`
	ShortestSuccessful *JobTime `json:"shortest_successful"`
	// Start and End are the times of the first and the last of the polls; nil where
	// there is none.
	Start *time.Time `json:"statistics_start"`
	End   *time.Time `json:"statistics_end"`
}

// JobTime is how long a job ran.
type JobTime struct {
	Queue    string          `json:"queue"`
	ID       job.ID          `json:"id"`
	Duration stream.Duration `json:"duration"`
}

// JobStats counts the jobs of the polls that the query's At, Before and Since
// allow, narrowed to its Queue and Agent.
func (d *Dispatcher) JobStats(q Query) (JobStats, error) {
	if err := q.only("queue", "agent", "at", "before", "since"); err != nil {
		return JobStats{}, err
	}
	return d.history.jobStats(q, time.Now()), nil
}

func (h *history) jobStats(q Query, now time.Time) JobStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	var stats JobStats
	var first, last Poll
	for poll := range h.spanned(q, now) {
		if last.Key == 0 {
			last = poll
		}
		first = poll
		for _, agents := range poll.Results.narrowed(q) {
			for _, a := range agents {
				stats.Started += a.Started
			}
		}
	}
	if first.Key == 0 {
		return stats
	}
	stats.Start, stats.End = new(first.Time), new(last.Time)
	stats.Unknown = stats.Started
	for r := range h.attempts(q) {
		if r.poll >= first.Key && r.poll <= last.Key {
			stats.Unknown--
		} else if r.poll > last.Key || !r.Ended.IsZero() && !r.Ended.After(first.Time) {
			continue
		}
		stats.count(r, now)
	}
	return stats
}

func (s *JobStats) count(r remembered, now time.Time) {
	switch {
	case r.Ended.IsZero():
		extremes(r, now, &s.ShortestActive, &s.LongestActive)
	case r.Outcome == nil:
		s.Unknown++
	case r.Outcome.Succeeded():
		s.Successful++
		extremes(r, r.Ended, &s.ShortestSuccessful, &s.LongestSuccessful)
	default:
		s.Failed++
		extremes(r, r.Ended, &s.ShortestFailed, &s.LongestFailed)
	}
}

func extremes(r remembered, until time.Time, shortest, longest **JobTime) {
	took := &JobTime{Queue: r.Queue, ID: r.ID, Duration: stream.Duration(until.Sub(r.Started))}
	if *shortest == nil || took.Duration < (*shortest).Duration {
		*shortest = took
	}
	if *longest == nil || took.Duration > (*longest).Duration {
		*longest = took
	}
}
