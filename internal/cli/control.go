package cli

import "github.com/mirego/tasuki/internal/client"

// client returns a client of the agent of --home.
func (a *app) client() *client.Client { return client.New(a.home) }

// first returns the first argument, or "".
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// whole says what an empty pool name stands for.
func whole(pool string) string {
	if pool == "" {
		return "the host"
	}
	return "pool " + pool
}
