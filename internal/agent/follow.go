package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/guest"
)

// follower reads a runner program's log into a file of this host, line by
// line, over as many channels as it takes, and gives its signals and its end.
// The file's size is the offset to go on from, for the next agent too.
type follower struct {
	news   chan news
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	trouble string // why the guest cannot be read now
}

// news is a signal of the runner program, or its end.
type news struct {
	guest.Signal
	exit *guest.Exit
}

// follow starts the follower if it does not run. It uses a channel of its own,
// so that a long read never waits behind another script.
func (k *keeper) follow() {
	if k.follower != nil {
		return
	}
	ctx, cancel := context.WithCancel(k.a.life)
	f := &follower{news: make(chan news, 64), cancel: cancel}
	k.follower = f
	reader := &keeper{a: k.a, pool: k.pool, name: k.name}
	reader.rec.ImageLabels = k.rec.ImageLabels
	kind := k.program().Kind
	f.done.Go(func() {
		defer reader.hangUp()
		f.run(ctx, reader, kind, k.a.LogPath(k.name))
	})
}

// unfollow ends the follower, so that a new program can be followed.
func (k *keeper) unfollow() {
	k.follower.stop()
	k.follower = nil
}

func (f *follower) stop() {
	if f == nil {
		return
	}
	f.cancel()
	f.done.Wait()
}

func (f *follower) setTrouble(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble = text
}

func (f *follower) troubled() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble
}

func (f *follower) run(ctx context.Context, reader *keeper, kind, path string) {
	send := func(n news) {
		select {
		case f.news <- n:
		case <-ctx.Done():
		}
	}
	tell := func(line string) {
		if s, ok := guest.Read(kind, line); ok {
			send(news{Signal: s})
		}
	}
	for n := 1; ctx.Err() == nil; n++ {
		exit, err := f.once(ctx, reader, path, tell)
		if err == nil && exit.Ended {
			send(news{exit: &exit})
			return
		}
		reader.hangUp()
		if err != nil {
			f.setTrouble(err.Error())
		}
		if backoff.Sleep(ctx, retryPace.Delay(n, nil)) != nil {
			return
		}
	}
}

// once follows until the channel breaks or the program has ended. What an
// earlier life copied already is read again for its signals: they are cheap,
// and the state that they led to may not have been written down.
func (f *follower) once(ctx context.Context, reader *keeper, path string, tell func(string)) (guest.Exit, error) {
	log, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return guest.Exit{}, fmt.Errorf("cannot keep the runner's log: %w", err)
	}
	defer log.Close()
	lines := guest.NewLines(tell)
	offset, err := bufio.NewReader(log).WriteTo(lines)
	if err != nil {
		return guest.Exit{}, fmt.Errorf("cannot read the runner's log %q: %w", path, err)
	}
	dial, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the guest did not answer for a minute"))
	err = reader.dial(dial)
	cancel()
	if err != nil {
		return guest.Exit{}, err
	}
	f.setTrouble("")
	exit, err := guest.Follow(ctx, reader.channel, offset, &keptLog{file: log, room: logLength - offset, lines: lines})
	lines.Flush()
	return exit, err
}
