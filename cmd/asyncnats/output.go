package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"

	"github.com/asyncnats/asyncnats/job"
)

// format is the flag of the subcommands that show something.
type format struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// plainStyle has neither borders nor lines: columns, two blanks apart.
var plainStyle = table.Style{
	Name:    "plain",
	Box:     table.BoxStyle{PaddingRight: "  "},
	Format:  table.FormatOptions{Header: text.FormatUpper},
	Options: table.OptionsNoBordersAndSeparators,
}

// newTable returns a table that is printed by its Render. On a terminal its
// header is bold.
func newTable(w io.Writer, columns ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(plainStyle)
	t.SuppressTrailingSpaces()
	if isTerminal(w) && os.Getenv("NO_COLOR") == "" {
		t.Style().Color.Header = text.Colors{text.Bold}
	}
	t.AppendHeader(columns)
	return t
}

// alignRight puts numbers below each other. Columns count from 1.
func alignRight(t table.Writer, columns ...int) {
	configs := make([]table.ColumnConfig, len(columns))
	for i, column := range columns {
		configs[i] = table.ColumnConfig{Number: column, Align: text.AlignRight, AlignHeader: text.AlignRight}
	}
	t.SetColumnConfigs(configs)
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printJSON prints v as indented JSON.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// size shows a number of bytes: 999 B, 1.0 kB, 12 MB.
func size(bytes int64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes), 0
	for ; value >= 999.5 && unit < 5; unit++ {
		value /= 1000
	}
	if value < 9.95 {
		return fmt.Sprintf("%.1f %cB", value, " kMGTP"[unit])
	}
	return fmt.Sprintf("%.0f %cB", value, " kMGTP"[unit])
}

// took shows a duration to three digits.
func took(d time.Duration) string {
	for unit := time.Duration(1); unit < time.Hour; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
	return d.Round(time.Minute).String()
}

// clock shows a time of day and its date; nothing where there is none.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// plural counts things: 1 job, 2 jobs.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// lines returns a function that shows what something has under a name; nothing
// where it has none.
func lines(w io.Writer) (line func(name, text string)) {
	return func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, strings.ReplaceAll(text, "\n", "\n            "))
		}
	}
}

// level shows a priority; nothing where it is normal.
func level(p job.Priority) string {
	if p == job.Normal {
		return ""
	}
	return p.String()
}

// short is the beginning of a UUID, enough to tell a few apart.
func short(uuid string) string {
	first, _, _ := strings.Cut(uuid, "-")
	return first
}

// firstLine shortens a message for a table.
func firstLine(message string, most int) string {
	line, _, more := strings.Cut(strings.TrimSpace(message), "\n")
	if runes := []rune(printable(line)); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	if more {
		line += " …"
	}
	return printable(line)
}

// lastPart shortens a path for a table, from the left.
func lastPart(path string, most int) string {
	runes := []rune(printable(path))
	if over := len(runes) - most; over > 0 {
		return "…" + string(runes[over+1:])
	}
	return string(runes)
}

// printable replaces what would move a terminal's cursor or change its colours.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
