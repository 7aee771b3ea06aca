package asyncnats_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// account is a store that many workers write to. It remembers the highest
// token that it has seen, and refuses whoever comes with a lower one: a worker
// whose job was given to another while it was away, and that does not know it
// yet.
type account struct {
	mu      sync.Mutex
	token   uint64
	balance int
}

var errOutdated = errors.New("somebody else has the account now")

func (a *account) read() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.balance
}

func (a *account) write(token uint64, balance int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token < a.token {
		return errOutdated
	}
	a.token, a.balance = token, balance
	return nil
}

// A quota of one has jobs take turns, over all dispatchers. The token of each
// turn lets a store refuse who overslept its own.
func ExampleQueue_CreateQuota() {
	var ours account
	var first uint64
	deposit := asyncnats.Define[int, int]("account.deposit").Quota("account")
	queue, stop := dispatch(deposit.Handle(func(ctx context.Context, amount int) (int, error) {
		info, _ := job.FromContext(ctx)
		if first == 0 {
			first = info.Fence("account")
		}
		balance := ours.read() + amount
		return balance, ours.write(info.Fence("account"), balance)
	}))
	defer stop()
	ctx := context.Background()
	if err := queue.CreateQuota(ctx, "account", 1); err != nil {
		log.Fatal(err)
	}

	for range 3 {
		j, err := asyncnats.Put(ctx, queue, deposit.Call(100))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(j.Wait(ctx))
	}
	fmt.Println(ours.write(first, 0))
	// Output:
	// 100 <nil>
	// 200 <nil>
	// 300 <nil>
	// somebody else has the account now
}

// Whether a quota exists is checked when a job that names it is put.
func ExampleQueue_Limit() {
	scan := asyncnats.Define[string, string]("page.scan")
	queue, stop := dispatch(scan.Handle(func(_ context.Context, page string) (string, error) {
		return "scanned " + page, nil
	}))
	defer stop()
	ctx := context.Background()

	_, err := asyncnats.Put(ctx, queue, scan.Call("first page").Quota("scanner"))
	fmt.Println(errors.Is(err, asyncnats.ErrUnknownQuota))
	if err := queue.Limit(ctx, "scanner", 2); err != nil {
		log.Fatal(err)
	}
	j, err := asyncnats.Put(ctx, queue, scan.Call("first page").Quota("scanner"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(j.Wait(ctx))
	quota, err := queue.Quota(ctx, "scanner")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(quota.Size, len(quota.Holders), quota.Filled())
	// Output:
	// true
	// scanned first page <nil>
	// 2 0 false
}

// A rate limit counts starts, whatever becomes of the jobs.
func ExampleQueue_RateLimit() {
	mail := asyncnats.Define[string, string]("mail.send").Quota("mail")
	queue, stop := dispatch(mail.Handle(func(_ context.Context, to string) (string, error) {
		return "sent to " + to, nil
	}))
	defer stop()
	ctx := context.Background()
	if err := queue.RateLimit(ctx, "mail", 100, time.Hour); err != nil {
		log.Fatal(err)
	}
	j, err := asyncnats.Put(ctx, queue, mail.Call("ada"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(j.Wait(ctx))
	quota, err := queue.Quota(ctx, "mail")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(quota.Size, "per", quota.Period, "of which are left", quota.Rate.Left)
	// Output:
	// sent to ada <nil>
	// 100 per 1h0m0s of which are left 99
}
