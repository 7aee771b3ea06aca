package integration

import "log/slog"

// quiet is a log for dispatchers of whom nothing is expected but work.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
