package api

import "time"

// ConsoleLink is the answer of POST /v1/console: how one browser gets into the
// console, once.
type ConsoleLink struct {
	URL     string    `json:"url"`
	Address string    `json:"address"` // host:port that the console listens on
	Path    string    `json:"path"`    // of URL, for those who come by another address
	Ends    time.Time `json:"ends"`    // when the link does
	// Hosts are further names that the console may be called by.
	Hosts []string `json:"hosts,omitempty"`
}
