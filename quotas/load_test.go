package quotas

import (
	"runtime"
	"testing"
	"time"
)

// However long an outage lasts, a gate keeps nothing for its end but one reading of
// all quotas, which finds what was changed meanwhile.
func TestLoadAfterAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p := w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		one.Abandon()
		requests, err := w.js.Conn().SubscribeSync("$JS.API.CONSUMER.CREATE.KV_" + bucketName + ".>")
		if err != nil {
			t.Fatal(err)
		}
		p.told()
		p.wire.Cut()
		settle()
		before, sent := runtime.NumGoroutine(), p.conn.Stats().OutMsgs
		w.limit(2, "gpu")
		time.Sleep(30 * time.Minute)
		if now := runtime.NumGoroutine(); now > before+5 {
			t.Errorf("%d goroutines, before %d", now, before)
		}
		if n := p.conn.Stats().OutMsgs - sent; n > 5 {
			t.Errorf("%d messages are kept", n)
		}
		p.wire.Restore()
		time.Sleep(loadEvery)
		if n, _, err := requests.Pending(); err != nil || n == 0 || n > 2 {
			t.Errorf("quotas are read %d times in the minute after, %v", n, err)
		}
		if got := p.told(); len(got) != 1 || got[0] != "gpu 2" {
			t.Errorf("told %q", got)
		}
	})
}
