package asyncnats_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/asyncnats/asyncnats"
)

// A handler puts more jobs, and whatever else the handle of its own job can do.
func ExampleSelf() {
	split := asyncnats.Define[[]string, []string]("text.split")
	queue, stop := dispatch(shout.Handle(func(_ context.Context, text string) (string, error) {
		return text + "!", nil
	}), split.Handle(func(ctx context.Context, texts []string) ([]string, error) {
		self, err := asyncnats.Self(ctx)
		if err != nil {
			return nil, err
		}
		var out []string
		for _, text := range texts {
			part, err := asyncnats.Put(ctx, self.Queue(), shout.Call(text))
			if err != nil {
				return nil, err
			}
			shouted, err := part.Wait(ctx)
			if err != nil {
				return nil, err
			}
			out = append(out, shouted)
		}
		return out, nil
	}))
	defer stop()

	whole, err := asyncnats.Put(context.Background(), queue, split.Call([]string{"one", "two"}))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(whole.Wait(context.Background()))
	// Output: [one! two!] <nil>
}

// A running job is asked to stop, and says what it has done so far.
func ExampleJob_Annotate() {
	endless := asyncnats.Define[asyncnats.None, string]("endless")
	queue, stop := dispatch(endless.Handle(func(ctx context.Context, _ asyncnats.None) (string, error) {
		self, err := asyncnats.Self(ctx)
		if err != nil {
			return "", err
		}
		if err := self.Annotate(ctx, "phase", "begun"); err != nil {
			return "", err
		}
		for {
			why, stop, err := asyncnats.Annotation[string](ctx, self, "stop")
			if err != nil || stop {
				return "stopped: " + why, err
			}
			select {
			case <-ctx.Done():
				return "", context.Cause(ctx)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}))
	defer stop()
	ctx := context.Background()

	running, err := asyncnats.Put(ctx, queue, endless.Call(asyncnats.None{}))
	if err != nil {
		log.Fatal(err)
	}
	phase, err := asyncnats.WaitAnnotation[string](ctx, running, "phase")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(phase)
	if err := running.Annotate(ctx, "stop", "it is late"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(running.Wait(ctx))
	// Output:
	// begun
	// stopped: it is late <nil>
}

// A handler reports how far it is; the last report is there when the job is completed.
func ExampleReport() {
	count := asyncnats.Define[int64, asyncnats.None]("count")
	queue, stop := dispatch(count.Handle(func(ctx context.Context, total int64) (asyncnats.None, error) {
		for done := range total {
			if err := asyncnats.Report(ctx, asyncnats.Progress{Done: done + 1, Total: total, Text: "counting"}); err != nil {
				return asyncnats.None{}, err
			}
		}
		return asyncnats.None{}, nil
	}))
	defer stop()
	ctx := context.Background()

	counted, err := asyncnats.Put(ctx, queue, count.Call(10_000))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := counted.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	progress, _, err := counted.Progress(ctx)
	fmt.Println(progress, err)
	// Output: 10000 of 10000 (100%), counting <nil>
}

// A running job answers from its own memory, whoever asks.
func ExampleAsk() {
	answers, release := make(chan struct{}), make(chan struct{})
	walk := asyncnats.Define[asyncnats.None, asyncnats.None]("walk")
	queue, stop := dispatch(walk.Handle(func(ctx context.Context, _ asyncnats.None) (asyncnats.None, error) {
		var position atomic.Int64
		position.Store(7)
		_, err := asyncnats.Answer(ctx, "position", func(_ context.Context, unit string) (string, error) {
			if unit != "km" {
				return "", fmt.Errorf("unknown unit %q", unit)
			}
			return fmt.Sprint(position.Load(), " ", unit), nil
		})
		close(answers)
		<-release
		return asyncnats.None{}, err
	}))
	defer stop()
	ctx := context.Background()

	walking, err := asyncnats.Put(ctx, queue, walk.Call(asyncnats.None{}))
	if err != nil {
		log.Fatal(err)
	}
	<-answers
	fmt.Println(asyncnats.Ask[string](ctx, walking, "position", "km"))
	_, err = asyncnats.Ask[string](ctx, walking, "position", "miles")
	if refused, ok := errors.AsType[*asyncnats.AnswerError](err); ok {
		fmt.Println(refused.Message)
	}
	close(release)
	if _, err := walking.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = asyncnats.Ask[string](ctx, walking, "position", "km")
	fmt.Println(errors.Is(err, asyncnats.ErrNotRunning))
	// Output:
	// 7 km <nil>
	// unknown unit "miles"
	// true
}

// A watch begins with what is set, and goes on with each change.
func ExampleJob_WatchAnnotations() {
	queue, stop := dispatch(shout.Handle(func(_ context.Context, text string) (string, error) { return text, nil }))
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waiting, err := asyncnats.Put(ctx, queue, shout.Call("hello").In(time.Hour))
	if err != nil {
		log.Fatal(err)
	}
	for _, phase := range []string{"one", "two"} {
		if err := waiting.Annotate(ctx, "phase", phase); err != nil {
			log.Fatal(err)
		}
	}
	for note, err := range waiting.WatchAnnotations(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		var phase string
		if err := note.Value.Decode(&phase); err != nil {
			log.Fatal(err)
		}
		fmt.Println(note.Name, phase)
		break
	}
	// Output: phase two
}
