package metrics

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/runner"
)

// Values of the label state of tasuki_slots.
const (
	slotFree     = "free"
	slotStarting = "starting"
	slotIdle     = "idle"
	slotBusy     = "busy"
	slotHeld     = "held"
	slotEnding   = "ending"
	slotLeaked   = "leaked"
)

// slotStates are all of them, so that each is there with a 0.
var slotStates = []string{slotFree, slotStarting, slotIdle, slotBusy, slotHeld, slotEnding}

// slotNumbers are the values of tasuki_slot_state, by their index: a panel
// shows a number over time, and gives it a name and a colour. A new one goes to
// the end.
var slotNumbers = []string{slotFree, slotStarting, slotIdle, slotBusy, slotHeld, slotEnding, slotLeaked}

// SlotNumbers returns the names of the values of tasuki_slot_state, by value.
func SlotNumbers() []string { return slices.Clone(slotNumbers) }

func slotNumber(state string) float64 { return float64(slices.Index(slotNumbers, state)) }

// slotCodes lists them for the reference.
func slotCodes() string {
	var words []string
	for i, name := range slotNumbers {
		words = append(words, fmt.Sprintf("%d %s", i, name))
	}
	return strings.Join(words, ", ")
}

func slotState(s runner.State) string {
	switch {
	case s == runner.Idle:
		return slotIdle
	case s == runner.Busy:
		return slotBusy
	case s == runner.Held:
		return slotHeld
	case s.OnItsWay():
		return slotStarting
	}
	return slotEnding
}

// Reasons of free slots beside those that pools wait for.
const (
	reasonDraining = "draining"
	reasonUnwanted = "unwanted"
)

// freeReason says why slots are free: the host drains, or the first pool that
// wants a runner cannot start it, or nobody wants one.
func freeReason(s api.Status, waits map[string]string) string {
	if s.Draining {
		return reasonDraining
	}
	for _, p := range s.Pools {
		if reason := waits[p.Name]; reason != "" {
			return reason
		}
	}
	return reasonUnwanted
}

// conclusions are GitHub's words for how a job ended. Source: docs.github.com,
// REST API, "Get a job for a workflow run".
var conclusions = []string{
	"success", "failure", "cancelled", "skipped", "timed_out", "neutral", "action_required", "stale", "startup_failure",
}

const unknown = "unknown"

// Values of the label result of tasuki_image_rolls_total.
const (
	rollProven   = "proven"
	rollRejected = "rejected"
)

// refused are the statuses with which GitHub refuses us. A 404 is none: so it
// says that something is gone, too.
var refused = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests}

// conclusion keeps the label's values to those that we know.
func conclusion(word string) string {
	// The scale-set service has words of its own for some.
	switch word = strings.ToLower(word); word {
	case "succeeded":
		return "success"
	case "failed":
		return "failure"
	case "canceled":
		return "cancelled"
	}
	if slices.Contains(conclusions, word) {
		return word
	}
	return unknown
}

type labelValue struct{ name, values string }

// labelValues describes the labels for the reference.
func labelValues() []labelValue {
	var states []string
	for _, r := range runner.Table() {
		states = append(states, string(r.State))
	}
	code := func(words ...string) string { return "`" + strings.Join(words, "`, `") + "`" }
	return []labelValue{
		{"conclusion", code(append(slices.Clone(conclusions), unknown)...)},
		{"pool", "the pools of the configuration"},
		{"reason", "of a pool: a code of why it waits, as `tasuki why` has them, such as " + code("no-slot", "no-image", "pulling", "limited", "denied", "failing") +
			"; of a free slot: the first waiting pool's, " + code(reasonDraining) + ", or " + code(reasonUnwanted) + " where no pool wants a runner"},
		{"resource", "GitHub's names of its limits: " + code("core", "actions_runner_registration")},
		{"result", "of a runner: " + code("well", "failed") + "; of a newer image: " + code(rollProven, rollRejected)},
		{"route", "the path of the API with names and numbers left out: `orgs/{org}/actions/runners/{id}`"},
		{"slot", "the slots of this host, from `0`"},
		{"state", "of a slot: " + code(slotStates...) + "; of a runner: " + code(states...)},
		{"status", "HTTP statuses, or `none` where no reply came"},
	}
}
