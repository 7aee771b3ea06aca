package asyncnats_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// Tasks of the examples of compositions.
var (
	thumbnail = asyncnats.Define[string, string]("image.thumbnail")
	album     = asyncnats.Define[[]asyncnats.Outcome[string], string]("album.build")
	page      = asyncnats.Define[job.Failure, asyncnats.None]("ops.page")
)

// thumbnailHandler makes thumbnails of all but owls.
var thumbnailHandler = thumbnail.Handle(func(_ context.Context, picture string) (string, error) {
	if picture == "owl" {
		return "", errors.New("owl flew away")
	}
	return "small " + picture, nil
})

// albumHandler puts thumbnails into an album.
var albumHandler = album.Handle(func(_ context.Context, thumbs []asyncnats.Outcome[string]) (string, error) {
	var pages []string
	for _, thumb := range thumbs {
		if _, err := thumb.Get(); err != nil {
			pages = append(pages, "("+err.Error()+")")
			continue
		}
		pages = append(pages, thumb.Result)
	}
	return strings.Join(pages, ", "), nil
})

// Parts run at once, wherever there is a place; what goes on with their outcomes, of
// which one may be a failure, runs once.
func ExampleThen() {
	queue, stop := dispatch(thumbnailHandler, albumHandler)
	defer stop()
	ctx := context.Background()

	thumbs := asyncnats.Parallel(thumbnail.Call("cat"), thumbnail.Call("owl"), thumbnail.Call("dog"))
	summer, err := asyncnats.Put(ctx, queue, asyncnats.Then(thumbs, album).OnFailure(page))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(summer.Wait(ctx))
	// Output: small cat, (owl flew away), small dog <nil>
}

// By itself a parallel returns what became of each of its parts, in order.
func ExampleParallel() {
	queue, stop := dispatch(thumbnailHandler)
	defer stop()
	ctx := context.Background()

	both, err := asyncnats.Put(ctx, queue, asyncnats.Parallel(thumbnail.Call("cat"), thumbnail.Call("owl")))
	if err != nil {
		log.Fatal(err)
	}
	thumbs, err := both.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, thumb := range thumbs {
		fmt.Println(thumb.Get())
	}
	// Output:
	// small cat <nil>
	//  owl flew away
}

// Callbacks are jobs that are put when another has its outcome, which they take. Those
// of a callback take what that returned.
func ExampleCall_OnSuccess() {
	told := make(chan string)
	measure := asyncnats.Define[string, int]("text.measure")
	note := asyncnats.Define[int, asyncnats.None]("text.note")
	queue, stop := dispatch(thumbnailHandler,
		measure.Handle(func(_ context.Context, text string) (int, error) { return len(text), nil }),
		note.Handle(func(_ context.Context, n int) (asyncnats.None, error) {
			told <- fmt.Sprintf("a text of %d", n)
			return asyncnats.None{}, nil
		}),
		page.Handle(func(_ context.Context, why job.Failure) (asyncnats.None, error) {
			told <- "paged: " + why.Message
			return asyncnats.None{}, nil
		}))
	defer stop()
	ctx := context.Background()

	for _, picture := range []string{"cat", "owl"} {
		call := thumbnail.Call(picture).OnSuccess(measure.OnSuccess(note)).OnFailure(page)
		if _, err := asyncnats.Put(ctx, queue, call); err != nil {
			log.Fatal(err)
		}
		fmt.Println(<-told)
	}
	// Output:
	// a text of 9
	// paged: owl flew away
}

// A callback that is added to a job that is over is put at once.
func ExampleJob_OnDone() {
	told := make(chan string)
	tell := asyncnats.Define[asyncnats.Outcome[string], asyncnats.None]("tell")
	queue, stop := dispatch(thumbnailHandler, tell.Handle(func(_ context.Context, o asyncnats.Outcome[string]) (asyncnats.None, error) {
		told <- o.Result
		return asyncnats.None{}, nil
	}))
	defer stop()
	ctx := context.Background()

	thumb, err := asyncnats.Put(ctx, queue, thumbnail.Call("cat"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := thumb.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	if err := thumb.OnDone(ctx, tell); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-told)
	// Output: small cat
}

// Bind gives a callback something of the caller's, beside what it takes.
func ExampleBind() {
	told := make(chan string)
	mail := asyncnats.Define[asyncnats.Bound[string, string], asyncnats.None]("mail.send")
	queue, stop := dispatch(thumbnailHandler, mail.Handle(func(_ context.Context, arg asyncnats.Bound[string, string]) (asyncnats.None, error) {
		told <- arg.Got + " for " + arg.With
		return asyncnats.None{}, nil
	}))
	defer stop()

	_, err := asyncnats.Put(context.Background(), queue, thumbnail.Call("cat").OnSuccess(asyncnats.Bind(mail, "ada")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-told)
	// Output: small cat for ada
}

// A part of a serial finds out what there is to do, and adds that.
func ExampleAddParts() {
	list := asyncnats.Define[string, string]("folder.list")
	queue, stop := dispatch(thumbnailHandler, albumHandler, list.Handle(func(ctx context.Context, folder string) (string, error) {
		whole, err := asyncnats.Whole[string](ctx)
		if err != nil {
			return "", err
		}
		for _, picture := range []string{"cat", "dog"} {
			if err := asyncnats.AddParts(ctx, whole, thumbnail.Call(picture)); err != nil {
				return "", err
			}
		}
		return folder, nil
	}))
	defer stop()
	ctx := context.Background()

	all, err := asyncnats.Put(ctx, queue, asyncnats.Then(asyncnats.Serial(list.Call("summer")), album))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(all.Wait(ctx))
	// Output: summer, small cat, small dog <nil>
}

// A handler hands its job on: what it returns is put, and its outcome is the
// job's. Meanwhile the job holds no place in its agent.
func ExampleTask_HandleCall() {
	folder := asyncnats.Define[[]string, string]("folder.album")
	queue, stop := dispatch(thumbnailHandler, albumHandler,
		folder.HandleCall(func(_ context.Context, pictures []string) (asyncnats.Call[string], error) {
			if len(pictures) == 0 {
				return asyncnats.Return("empty"), nil
			}
			var thumbs []asyncnats.Call[string]
			for _, picture := range pictures {
				thumbs = append(thumbs, thumbnail.Call(picture))
			}
			return asyncnats.Then(asyncnats.Parallel(thumbs...), album), nil
		}))
	defer stop()
	ctx := context.Background()

	for _, pictures := range [][]string{{"cat", "dog"}, nil} {
		built, err := asyncnats.Put(ctx, queue, folder.Call(pictures))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(built.Wait(ctx))
	}
	// Output:
	// small cat, small dog <nil>
	// empty <nil>
}

// The tree of a job is it with its parts, theirs, and the callbacks that were put.
func ExampleJob_Tree() {
	queue, stop := dispatch(thumbnailHandler, albumHandler)
	defer stop()
	ctx := context.Background()

	thumbs := asyncnats.Parallel(thumbnail.Call("cat"), thumbnail.Call("owl"))
	summer, err := asyncnats.Put(ctx, queue, asyncnats.Then(thumbs, album))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := summer.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	tree, err := summer.Tree(ctx, 10)
	if err != nil {
		log.Fatal(err)
	}
	var show func(n asyncnats.Node, indent string)
	show = func(n asyncnats.Node, indent string) {
		became := "not over"
		switch {
		case n.Failure != nil:
			became = "failed: " + n.Failure.Message
		case n.State.Ended():
			became = "succeeded"
		}
		fmt.Printf("%s%s %s\n", indent, n.Task, became)
		for _, child := range append(n.Parts, n.Callbacks...) {
			show(child, indent+"  ")
		}
	}
	show(tree, "")
	// Output:
	// then succeeded
	//   parallel succeeded
	//     image.thumbnail succeeded
	//     image.thumbnail failed: owl flew away
	//   album.build succeeded
}
