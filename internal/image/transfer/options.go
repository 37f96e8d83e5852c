package transfer

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/image"
)

// Options say how to talk to a registry. The zero value is ready: HTTPS,
// nobody logged in.
type Options struct {
	// Insecure allows plain HTTP. Registries on a loopback address are allowed
	// it without being asked.
	Insecure bool
	// Username and Password log in; empty means anonymous.
	Username string
	Password secret.String
	// Parallel is how many chunks are in work at once at most; 0 means 4. A
	// push holds each twice in memory, a pull about 1.5 MiB per chunk.
	Parallel int
	// ChunkSize is the raw length in bytes of the chunks that a push writes; 0
	// means tartfmt.DefaultChunkSize. It grows with very large disks.
	ChunkSize int64
	// Tries is how often a request without any progress is made; 0 means 6.
	Tries int
	// Backoff is the pause between tries; its zero value is half a second,
	// doubling to a minute.
	Backoff backoff.Policy
	// Stall is how long a connection may stay silent; 0 means one minute.
	Stall time.Duration
	// Limit bounds the bytes a second, over all transfers that it is given to;
	// nil means no bound.
	Limit *Limiter
	// Room, if not nil, is asked to free space when a pull needs so many bytes
	// and the store's file system has less. The pull looks again afterwards.
	Room func(ctx context.Context, need int64) error
	// Reserve is how many bytes a pull leaves free.
	Reserve int64
	// Progress is told how far a transfer is, at most ten times a second and
	// at the beginning and the end of each phase. Calls do not overlap.
	Progress func(Progress)
	// Log gets retries as warnings; nil means slog.Default.
	Log *slog.Logger
	// Roots are the authorities that the registry's certificate may be signed
	// by; nil means the system's. A Transport has its own.
	Roots *x509.CertPool
	// Transport carries the requests; nil means one of our own.
	Transport http.RoundTripper
	// Now gives the upload time of a push; nil means time.Now.
	Now func() time.Time
}

const (
	defaultParallel = 4
	defaultTries    = 6
	defaultStall    = time.Minute
)

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	if o.Tries <= 0 {
		o.Tries = defaultTries
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func (o Options) plainAllowed(ref image.Ref) bool { return o.Insecure || ref.Loopback() }

// Phase is what a transfer is doing.
type Phase string

// Phases of a pull, in their order, of a push, and of a copy.
const (
	PhaseWait   Phase = "wait"   // another transfer brings the same image
	PhaseCheck  Phase = "check"  // what an earlier transfer left is verified; raw bytes
	PhasePull   Phase = "pull"   // chunks are fetched, or cloned from local images; bytes as they travel
	PhaseFinish Phase = "finish" // the disk is made durable
	PhasePush   Phase = "push"   // chunks are compressed and uploaded; raw bytes
	PhaseCopy   Phase = "copy"   // blobs go from one registry to another; bytes as they travel
)

// Progress says how far a phase is, in bytes.
type Progress struct {
	Phase Phase
	Done  int64
	Total int64
	// Reused is how much of Done did not travel: a pull found its content on
	// this host, a push in the registry.
	Reused int64
}

const progressInterval = 100 * time.Millisecond

// meter counts a phase's bytes and reports them.
type meter struct {
	mu     sync.Mutex
	report func(Progress)
	now    Progress
	last   time.Time
}

// begin starts a phase.
func (m *meter) begin(phase Phase, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = Progress{Phase: phase, Total: total}
	m.send()
}

// grow adds n bytes to what the phase has to do.
func (m *meter) grow(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Total += n
}

// add counts n bytes, which may be negative when work was lost.
func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Done += n
	if time.Since(m.last) >= progressInterval {
		m.send()
	}
}

// reuse counts n bytes that did not travel.
func (m *meter) reuse(n int64) {
	m.mu.Lock()
	m.now.Reused += n
	m.mu.Unlock()
	m.add(n)
}

// end reports the phase as it is.
func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.send()
}

func (m *meter) send() {
	m.last = time.Now()
	if m.report != nil {
		m.report(m.now)
	}
}
