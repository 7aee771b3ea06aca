package main

import (
	"fmt"
	"time"
)

// timeFlag is a time as text: RFC 3339, or a date and a time of day, or the next
// such time of day, in the local zone.
type timeFlag time.Time

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *timeFlag) UnmarshalText(text []byte) error {
	parsed, err := parseTime(string(text), time.Now())
	*t = timeFlag(parsed)
	return err
}

func parseTime(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		year, month, day := now.Date()
		at := time.Date(year, month, day, t.Hour(), t.Minute(), t.Second(), 0, now.Location())
		if !at.After(now) {
			at = time.Date(year, month, day+1, t.Hour(), t.Minute(), t.Second(), 0, now.Location())
		}
		return at, nil
	}
	return time.Time{}, fmt.Errorf("time %q: must be like 2026-05-01T07:00:00Z or, in local time, \"2026-05-01 07:00\" or 07:00", text)
}
