package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

type quotaInfoCmd struct {
	patience
	format
	Name  string `arg:"" help:"Name of the quota."`
	Queue string `short:"q" default:"default" help:"Queue whose jobs it limits."`
}

// Help is shown below the usage.
func (*quotaInfoCmd) Help() string {
	return `Holders are shown in the order in which they got their slots, waiters in that in which they will. Waiters are those jobs that a dispatcher has at hand; further ones are pending.

A slot whose worker was killed stays with its job, for the next attempt, which comes an ack wait later. Each slot has a higher fencing token than those before it.

Of a rate limit the holders are the jobs that run, and limit nothing. How many may start now, or in how long the next may, is by the server's clock.`
}

// Run shows the quota.
func (c *quotaInfoCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "quota info")
	if err != nil {
		return err
	}
	defer disconnect()
	q := client.Queue(c.Queue)
	quota, err := q.Quota(ctx, c.Name)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.out, withLists(quota))
	}
	info, err := q.Info(ctx)
	if err != nil {
		return err
	}
	printQuota(a.out, quota, info, time.Now())
	return nil
}

// printQuota prints a quota, and what its queue adds: how many jobs that name
// it nobody has at hand, and which dispatchers answer. The queue was looked at
// a moment later.
func printQuota(w io.Writer, quota asyncnats.Quota, info asyncnats.QueueInfo, now time.Time) {
	pending := 0
	for _, lane := range info.Lanes {
		if slices.Contains(lane.Quotas, quota.Name) {
			pending += int(lane.Pending)
		}
	}
	fmt.Fprintf(w, "quota %s of queue %s: %s, %d running, %d waiting, %d pending\n",
		quota.Name, info.Name, quotaSize(quota.Size, quota.Period), len(quota.Holders), len(quota.Waiters), pending)
	switch {
	case quota.Size == 0:
		fmt.Fprintln(w, "size 0 starts nothing")
	case quota.Rate != nil:
		fmt.Fprintln(w, rateLeft(quota))
	case len(quota.Holders) > quota.Size:
		fmt.Fprintln(w, "more run than its size: nothing starts until fewer do")
	}
	printClaims(w, quota, func(c quotas.Claim) bool {
		return !slices.ContainsFunc(info.Dispatchers, func(p stream.Presence) bool { return p.Dispatcher == c.Dispatcher })
	}, now)
}

// rateLeft says how a rate limit stands; empty for a quota of the other kind.
func rateLeft(quota asyncnats.Quota) string {
	switch {
	case quota.Rate == nil || quota.Size == 0:
		return ""
	case quota.Rate.Left == 0:
		return fmt.Sprintf("none left, the next in %s", took(time.Duration(quota.Rate.Next)))
	}
	return fmt.Sprintf("%d left", quota.Rate.Left)
}

// printClaims prints holders and waiters. silent tells whose dispatcher does not
// answer.
func printClaims(w io.Writer, quota asyncnats.Quota, silent func(quotas.Claim) bool, now time.Time) {
	if len(quota.Holders) > 0 {
		fmt.Fprintln(w)
		t := newTable(w, "holder", "dispatcher", "since", "fence", "")
		alignRight(t, 3, 4)
		for _, c := range quota.Holders {
			note := ""
			if silent(c) {
				note = unanswered
			}
			t.AppendRow([]any{c.ID, c.Dispatcher, age(c.Since, now), c.Fence, note})
		}
		t.Render()
	}
	if len(quota.Waiters) > 0 {
		fmt.Fprintln(w)
		t := newTable(w, "waiter", "dispatcher", "since", "")
		alignRight(t, 3)
		for _, c := range quota.Waiters {
			t.AppendRow([]any{c.ID, c.Dispatcher, age(c.Since, now), waits(c, silent(c))})
		}
		t.Render()
	}
}

// unanswered is the note on a claim whose dispatcher is silent; it may be dead.
const unanswered = "its dispatcher does not answer"

// waits says what is special about a waiter.
func waits(c quotas.Claim, silent bool) string {
	switch {
	case silent:
		return unanswered
	case c.Reserves:
		return "needs several quotas: a slot is kept for it"
	case c.Several:
		return "needs several quotas"
	case c.Interrupted:
		return "was interrupted: comes first"
	}
	return ""
}

// age is how long ago something was, by clocks that may differ a little.
func age(since, now time.Time) string {
	return took(max(0, now.Sub(since))) + " ago"
}
