package asyncnats_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// A task says how its jobs are tried again; a handler may know better.
func ExampleTask_Retry() {
	send := asyncnats.Define[string, string]("mail.send").Retry(job.Retry{Max: 3, Min: 50 * time.Millisecond})
	queue, stop := dispatch(send.Handle(func(ctx context.Context, to string) (string, error) {
		info, _ := job.FromContext(ctx)
		switch {
		case to == "":
			return "", job.Permanent(errors.New("nobody to send it to"))
		case info.Errors < 2:
			return "", errors.New("the mail server is busy")
		}
		return fmt.Sprintf("sent to %s at attempt %d", to, info.Attempt), nil
	}))
	defer stop()
	ctx := context.Background()
	for _, to := range []string{"ada", ""} {
		j, err := asyncnats.Put(ctx, queue, send.Call(to))
		if err != nil {
			log.Fatal(err)
		}
		answer, err := j.Wait(ctx)
		fmt.Printf("%q %v\n", answer, err)
	}
	// Output:
	// "sent to ada at attempt 3" <nil>
	// "" nobody to send it to
}

// A job that is to begin later is stored at once, and begins when it is due. Until
// then it can be replaced, cancelled, or taken back.
func ExampleCall_In() {
	rebuild := asyncnats.Define[string, string]("index.rebuild")
	queue, stop := dispatch(rebuild.Handle(func(_ context.Context, why string) (string, error) {
		return "rebuilt: " + why, nil
	}))
	defer stop()
	ctx := context.Background()
	var last *asyncnats.Job[string]
	for _, why := range []string{"a page was added", "a page was changed", "a page was removed"} {
		j, err := asyncnats.Put(ctx, queue, rebuild.Call(why).Unique("main").Debounce(time.Second))
		if err != nil {
			log.Fatal(err)
		}
		last = j
	}
	fmt.Println(last.Wait(ctx))

	tonight, err := asyncnats.Put(ctx, queue, rebuild.Call("it is night").In(12*time.Hour))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tonight.Cancel(ctx))
	_, err = tonight.Wait(ctx)
	fmt.Println(err)
	// Output:
	// rebuilt: a page was removed <nil>
	// pending <nil>
	// cancelled: it was pending
}

// What failed in the end is kept, and can be put again when its cause is gone.
func ExampleQueue_Dead() {
	open := false
	enter := asyncnats.Define[string, string]("harbour.enter")
	queue, stop := dispatch(enter.Handle(func(_ context.Context, ship string) (string, error) {
		if !open {
			return "", errors.New("the harbour is closed")
		}
		return ship + " is in", nil
	}))
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	j, err := asyncnats.Put(ctx, queue, enter.Call("Beagle"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := j.Wait(ctx); err == nil {
		log.Fatal("it got in")
	}
	open = true
	var dead []asyncnats.Dead
	for len(dead) == 0 { // it is kept a moment after its outcome can be read
		if dead, err = queue.Dead(ctx, asyncnats.DeadFilter{Task: "harbour.*"}); err != nil {
			log.Fatal(err)
		}
	}
	for _, d := range dead {
		fmt.Println(d.Task, "failed:", d.Failure())
		again, err := queue.Retry(ctx, d)
		if err != nil {
			log.Fatal(err)
		}
		value, err := again.Wait(ctx)
		if err != nil {
			log.Fatal(err)
		}
		var answer string
		if err := value.Decode(&answer); err != nil {
			log.Fatal(err)
		}
		fmt.Println(answer)
	}
	// Output:
	// harbour.enter failed: the harbour is closed
	// Beagle is in
}
