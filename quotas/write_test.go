package quotas

import (
	"strings"
	"testing"
	"time"
)

// That the server refuses to store a quota is said, and not too often; that it does not
// answer is not, for that is said of the connection.
func TestWriteIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p := w.start()
		settle()
		config := w.stream().CachedInfo().Config
		room := func(bytes int64) {
			t.Helper()
			config.MaxBytes = bytes
			if _, err := w.js.UpdateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
		}
		room(int64(w.stream().CachedInfo().State.Bytes))
		one := p.enter(1, "gpu")
		time.Sleep(2*warnEvery + warnEvery/2)
		if closed(one.Granted()) {
			t.Error("let in")
		}
		if log := p.logged(); strings.Count(log, "\n") != 3 || strings.Count(log, `level=WARN msg="quota cannot be written, its jobs wait: `) != 3 || !strings.Contains(log, "quota=gpu") {
			t.Errorf("logged %q, want one warning a minute", log)
		}
		room(-1)
		time.Sleep(tryPause)
		wantIn(t, []*seat{one}, 1)
		time.Sleep(warnEvery)
		p.wire.Freeze()
		left := one.Leave()
		time.Sleep(20 * time.Second)
		p.wire.Thaw()
		soon(t, "left", left)
		if log := p.logged(); log != "" {
			t.Errorf("logged %q", log)
		}
	})
}
