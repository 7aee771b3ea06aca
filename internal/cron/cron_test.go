package cron

import (
	"strings"
	"testing"
	"time"
)

func mustParse(t *testing.T, expression, zone string) Schedule {
	t.Helper()
	s, err := Parse(expression, zone)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestNext(t *testing.T) {
	const from = "2026-03-04T05:06:07Z"
	tests := map[string]struct{ expression, zone, want string }{
		"five fields":      {"0 3 * * *", "", "2026-03-05T03:00:00Z"},
		"six fields":       {"30 0 3 * * *", "", "2026-03-05T03:00:30Z"},
		"names":            {"0 3 * JAN MON", "", "2027-01-04T03:00:00Z"},
		"steps":            {"*/15 * * * *", "", "2026-03-04T05:15:00Z"},
		"seconds":          {"*/10 * * * * *", "", "2026-03-04T05:06:10Z"},
		"hourly":           {"@hourly", "", "2026-03-04T06:00:00Z"},
		"daily in a zone":  {"@daily", "Europe/Berlin", "2026-03-04T23:00:00Z"},
		"weekly":           {"@weekly", "UTC", "2026-03-08T00:00:00Z"},
		"leap day":         {"0 0 29 2 *", "", "2028-02-29T00:00:00Z"},
		"half hours":       {"0 * * * *", "Asia/Kolkata", "2026-03-04T05:30:00Z"},
		"every":            {"@every 90s", "", "2026-03-04T05:07:30Z"},
		"every, unevenly":  {"@every 1m0.5s", "", "2026-03-04T05:07:03.5Z"},
		"every long":       {"@every 24h", "Europe/Berlin", "2026-03-05T05:00:00Z"},
		"blanks around it": {" 0 3 * * * ", "", "2026-03-05T03:00:00Z"},
	}
	for name, test := range tests {
		got := mustParse(t, test.expression, test.zone).Next(at(t, "2026-03-04T05:00:00Z"), at(t, from))
		if text := got.UTC().Format(time.RFC3339Nano); text != test.want {
			t.Errorf("%s: %s ticks at %s, want %s", name, test.expression, text, test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct{ expression, zone, want string }{
		"nothing":     {"", "", "empty"},
		"four fields": {"0 3 * *", "", "expected 5 to 6 fields"},
		"range":       {"61 3 * * *", "", "above maximum (59)"},
		"text":        {"daily", "", "expected 5 to 6 fields"},
		"descriptor":  {"@fortnightly", "", "unrecognized descriptor"},
		"reboot":      {"@reboot", "", "unrecognized descriptor"},
		"too often":   {"@every 10ms", "", "shorter than 1s"},
		"too rarely":  {"@every 876001h", "", "longer than 876000h0m0s"},
		"no period":   {"@every soon", "", "invalid duration"},
		"no such day": {"0 0 30 2 *", "", "there is no such day"},
		"zone inside": {"TZ=UTC 0 3 * * *", "", "not part of it"},
		"zone":        {"0 3 * * *", "Berlin", `unknown time zone "Berlin"`},
		"local":       {"0 3 * * *", "Local", "unknown time zone"},
	}
	for name, test := range tests {
		_, err := Parse(test.expression, test.zone)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "must be") {
			t.Errorf("%s: %v, want it to say %q and how it must be", name, err, test.want)
		}
	}
}

// Every tick of the days around a change of the clock, by hand.
func TestChangesOfTheClock(t *testing.T) {
	tests := map[string]struct {
		expression, zone, from, upTo string
		want                         string
	}{
		"named, skipped": {"30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z",
			"03-28T01:30 03-29T01:00 03-30T00:30"},
		"named, twice": {"30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z",
			"10-24T00:30 10-25T00:30 10-26T01:30"},
		"named, skipped, America": {"30 2 * * *", "America/New_York", "2026-03-07T00:00:00Z", "2026-03-09T12:00:00Z",
			"03-07T07:30 03-08T07:00 03-09T06:30"},
		"named, twice, America": {"30 1 * * *", "America/New_York", "2026-10-31T00:00:00Z", "2026-11-02T12:00:00Z",
			"10-31T05:30 11-01T05:30 11-02T06:30"},
		"some of them skipped are one": {"0,20,40 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z",
			"03-29T01:00 03-29T01:20 03-29T01:40"},
		"hourly, skipped": {"@hourly", "Europe/Berlin", "2026-03-28T23:30:00Z", "2026-03-29T02:30:00Z",
			"03-29T00:00 03-29T01:00 03-29T02:00"},
		"hourly, twice": {"30 * * * *", "Europe/Berlin", "2026-10-24T23:00:00Z", "2026-10-25T02:00:00Z",
			"10-24T23:30 10-25T00:30 10-25T01:30"},
		"midnight is skipped": {"@daily", "America/Asuncion", "2024-10-05T00:00:00Z", "2024-10-07T12:00:00Z",
			"10-05T04:00 10-06T04:00 10-07T03:00"},
		"half an hour": {"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-04T20:00:00Z",
			"10-03T15:30 10-04T15:15"},
	}
	for name, test := range tests {
		s := mustParse(t, test.expression, test.zone)
		var got []string
		upTo := at(t, test.upTo)
		for tick := s.Next(time.Time{}, at(t, test.from)); !tick.After(upTo); tick = s.Next(time.Time{}, tick) {
			got = append(got, tick.UTC().Format("01-02T15:04"))
		}
		if text := strings.Join(got, " "); text != test.want {
			t.Errorf("%s: %s, want %s", name, text, test.want)
		}
	}
}

// A year of every kind of expression: ticks rise, each named local time has one a
// day, and whatever shows on the clock while time passes is ticked.
func TestYear(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"} {
		location, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Date(2026, 1, 1, 0, 0, 0, 0, location)
		end := time.Date(2027, 1, 1, 0, 0, 0, 0, location)
		for expression, want := range map[string]int{
			"30 2 * * *": 365, "0 0 * * *": 365, "15 1,2,3 * * *": 3 * 365, "*/30 * * * *": 365 * 48, "0 12 * * SUN": 52,
		} {
			s := mustParse(t, expression, zone)
			n := 0
			last := begin.Add(-1)
			for tick := s.Next(time.Time{}, last); tick.Before(end); tick = s.Next(time.Time{}, tick) {
				if !tick.After(last) {
					t.Fatalf("%s in %s: %v follows %v", expression, zone, tick, last)
				}
				if found := s.Last(time.Time{}, begin, tick.Add(time.Millisecond)); !found.Equal(tick) {
					t.Fatalf("%s in %s: last tick at %v is %v", expression, zone, tick, found)
				}
				last = tick
				n++
			}
			if n != want {
				t.Errorf("%s in %s: %d ticks, want %d", expression, zone, n, want)
			}
		}
	}
}

func TestLast(t *testing.T) {
	s := mustParse(t, "0 0 1 1 *", "")
	from, upTo := at(t, "2025-06-01T00:00:00Z"), at(t, "2026-12-31T00:00:00Z")
	if last := s.Last(time.Time{}, from, upTo); !last.Equal(at(t, "2026-01-01T00:00:00Z")) {
		t.Errorf("last tick %v", last)
	}
	if last := s.Last(time.Time{}, from, from.Add(time.Hour)); !last.IsZero() {
		t.Errorf("last tick %v, want none", last)
	}
	every := mustParse(t, "@every 1s", "")
	if last := every.Last(from, from, from.AddDate(50, 0, 0)); !last.Equal(from.AddDate(50, 0, 0)) {
		t.Errorf("last tick %v", last)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"0 3 * * *", "@every 90s", "@daily", "*/5 1-3 ? JAN MON#2", "TZ=", "@every ", "0 0 31 4 *"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		s, err := Parse(expression, "Europe/Berlin")
		now := time.Unix(1_800_000_000, 0)
		if next := s.Next; err == nil && !next(now, now).IsZero() && !next(now, now).After(now) {
			t.Errorf("%q ticks at %v after %v", expression, next(now, now), now)
		}
	})
}
