// Package cron reads expressions that say when something recurs, and computes
// the moments at which it does: its ticks. It is arithmetic, and asks no clock.
//
// The expressions are those of the cron of github.com/robfig/cron: five fields
// (minute, hour, day of month, month, day of week) or six, with seconds before
// them; names of months and days; @hourly and the like; "@every 90s".
//
// # Where clocks are changed
//
// An expression whose hour is "*" goes by the time that passes: it ticks whenever
// the clock on the wall shows what it asks for, so twice where an hour occurs
// twice, and not at all where the clock skips it.
//
// Any other names hours of the day, and each local time that it names has one
// tick a day: where the clock shows it twice, the first time; where the clock
// skips it, at the moment of the change. Ticks that fall together so are one.
package cron

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// MinEvery is the shortest period of "@every".
const MinEvery = time.Second

// MaxEvery is the longest, 100 years: a tick in nanoseconds since 1970 fits 64
// bits.
const MaxEvery = 100 * 365 * 24 * time.Hour

// Schedule is an expression in a time zone.
type Schedule struct {
	zone   *time.Location
	fields *cron.SpecSchedule // nil for @every; evaluated as if the zone were UTC
	every  time.Duration
}

var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Parse reads an expression and the name of a time zone, which is UTC where it is
// empty. It refuses an expression that never comes true.
func Parse(expression, zone string) (Schedule, error) {
	s := Schedule{}
	var err error
	if s.zone, err = time.LoadLocation(zone); err != nil || zone == "Local" {
		return s, fmt.Errorf("unknown time zone %q: must be one of the IANA database, like Europe/Berlin or UTC", zone)
	}
	if err := s.parse(strings.TrimSpace(expression)); err != nil {
		return s, fmt.Errorf("cron expression %q: %w: must be five fields, minute hour day month weekday, like \"30 3 * * MON-FRI\", six with seconds before them, @hourly, @daily, @weekly, @monthly, @yearly, or like \"@every 90s\"", expression, err)
	}
	return s, nil
}

func (s *Schedule) parse(expression string) error {
	if strings.HasPrefix(expression, "TZ=") || strings.HasPrefix(expression, "CRON_TZ=") {
		return errors.New("the time zone is not part of it")
	}
	parsed, err := parser.Parse(expression)
	if err != nil {
		return err
	}
	if _, ok := parsed.(cron.ConstantDelaySchedule); ok {
		// The parser's own result is rounded.
		s.every, err = time.ParseDuration(strings.TrimPrefix(expression, "@every "))
		switch {
		case err != nil:
			return err
		case s.every < MinEvery:
			return fmt.Errorf("%v is shorter than %v", s.every, MinEvery)
		case s.every > MaxEvery:
			return fmt.Errorf("%v is longer than %v, 100 years", s.every, MaxEvery)
		}
		return nil
	}
	s.fields = parsed.(*cron.SpecSchedule)
	s.fields.Location = time.UTC
	if s.Next(time.Time{}, time.Unix(0, 0)).IsZero() {
		return errors.New("there is no such day")
	}
	return nil
}

// hourly is the hour field of an expression that does not name hours.
const hourly = 1<<24 - 1

// Next returns the first tick after a moment; the zero time where there is none
// for five years. Those of "@every" are counted from the anchor, which is none
// itself.
func (s Schedule) Next(anchor, after time.Time) time.Time {
	switch {
	case s.fields == nil:
		anchor = anchor.Truncate(time.Second)
		past := max(0, after.Sub(anchor)/s.every)
		return anchor.Add(past*s.every + s.every) //nolint:durationcheck // past is a number
	case s.fields.Hour&hourly == hourly:
		return s.nextPassing(after)
	}
	return s.nextNamed(after)
}

// nextPassing goes from one change of the clock to the next.
func (s Schedule) nextPassing(after time.Time) time.Time {
	for at := after; ; {
		local := at.In(s.zone)
		_, end := local.ZoneBounds()
		_, offset := local.Zone()
		shift := time.Duration(offset) * time.Second
		next := s.fields.Next(after.UTC().Add(shift))
		if next.IsZero() {
			return next
		}
		if next = next.Add(-shift); end.IsZero() || next.Before(end) {
			return next
		}
		at, after = end, end.Add(-1)
	}
}

// nextNamed goes from one time of the wall's clock to the next.
func (s Schedule) nextNamed(after time.Time) time.Time {
	_, offset := after.In(s.zone).Zone()
	wall := after.UTC().Add(time.Duration(offset) * time.Second)
	for {
		if wall = s.fields.Next(wall); wall.IsZero() {
			return wall
		}
		if next := s.firstAt(wall); next.After(after) {
			return next
		}
	}
}

// firstAt returns when the clock on the wall shows a time, written as one in UTC,
// for the first time, or passes it.
func (s Schedule) firstAt(wall time.Time) time.Time {
	const day = 24 * time.Hour // no clock is changed twice within two
	_, before := wall.Add(-day).In(s.zone).Zone()
	_, behind := wall.Add(day).In(s.zone).Zone()
	first := wall.Add(-time.Duration(before) * time.Second)
	if _, offset := first.In(s.zone).Zone(); offset == before {
		return first
	}
	second := wall.Add(-time.Duration(behind) * time.Second)
	if _, offset := second.In(s.zone).Zone(); offset == behind {
		return second
	}
	change, _ := first.In(s.zone).ZoneBounds()
	return change.UTC()
}

// Last returns the last tick in [from, upTo], the zero time where there is none.
// It looks back in windows that grow.
func (s Schedule) Last(anchor, from, upTo time.Time) (last time.Time) {
	for window := time.Minute; ; window *= 2 {
		begin := upTo.Add(-window)
		whole := window < 0 || begin.Before(from)
		if whole {
			begin = from
		}
		for tick := s.Next(anchor, begin.Add(-1)); !tick.IsZero() && !tick.After(upTo); tick = s.Next(anchor, tick) {
			last = tick
		}
		if whole || !last.IsZero() {
			return last
		}
	}
}
