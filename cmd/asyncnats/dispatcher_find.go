package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
)

// shortestPrefix is how much of a dispatcher's UUID has to be given.
const shortestPrefix = 4

// findDispatcher returns the UUID of the dispatcher that is meant: given in whole,
// registered or not, or by how that of a registered one begins.
func findDispatcher(ctx context.Context, client *asyncnats.Client, given string) (string, error) {
	if id, err := uuid.Parse(given); err == nil {
		return id.String(), nil
	}
	prefix := strings.ToLower(given)
	if len(prefix) < shortestPrefix || strings.Trim(prefix, "0123456789abcdef-") != "" {
		return "", usagef("dispatcher %q: must be a UUID, or at least the first %d characters of one (asyncnats dispatcher ls lists them)", given, shortestPrefix)
	}
	list, err := client.Dispatchers(ctx)
	if err != nil {
		return "", err
	}
	var found []string
	for _, each := range list {
		if strings.HasPrefix(each.Dispatcher, prefix) {
			found = append(found, each.Dispatcher)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("dispatcher %s: %w (asyncnats dispatcher ls lists those there are)", given, asyncnats.ErrNoDispatcher)
	case 1:
		return found[0], nil
	}
	return "", usagef("dispatcher %s: may be any of %s: give more of its UUID", given, strings.Join(found, ", "))
}
