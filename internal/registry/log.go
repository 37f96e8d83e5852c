package registry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"

	"github.com/sirupsen/logrus"
)

// instanceKey is the context key, and the log field, under which the library
// names the server that a line belongs to.
const instanceKey = "instance.id"

// bridge carries the library's log lines to the logger of the server that they
// belong to. The library logs through logrus' one standard logger and gives no
// way to hand it another, so the bridge is a hook on that logger, and the only
// state that servers of one process share.
var bridge logBridge

type logBridge struct {
	install sync.Once
	mu      sync.Mutex
	last    uint64
	logs    map[string]*slog.Logger
}

// attach makes lines marked with the returned id go to log until detach.
func (b *logBridge) attach(log *slog.Logger) (id string, detach func()) {
	b.install.Do(func() {
		std := logrus.StandardLogger()
		std.SetOutput(io.Discard)
		std.AddHook(b)
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	id = strconv.FormatUint(b.last, 10)
	if b.logs == nil {
		b.logs = map[string]*slog.Logger{}
	}
	b.logs[id] = log
	return id, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.logs, id)
	}
}

// Levels implements logrus.Hook. Info and below repeat what we log ourselves.
func (b *logBridge) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

// Fire implements logrus.Hook.
func (b *logBridge) Fire(e *logrus.Entry) error {
	id, _ := e.Data[instanceKey].(string)
	b.mu.Lock()
	log := b.logs[id]
	b.mu.Unlock()
	if log == nil {
		return nil
	}
	level, attrs := slog.LevelWarn, []slog.Attr{slog.String("text", e.Message)}
	for key, name := range map[string]string{
		"err.code": "code", "err.message": "err", "err.detail": "detail",
		"http.request.method": "method", "http.request.uri": "path", "http.response.status": "status",
	} {
		if v, ok := e.Data[key]; ok {
			attrs = append(attrs, slog.String(name, fmt.Sprint(v)))
		}
	}
	if expected(fmt.Sprint(e.Data["err.code"])) || e.Level == logrus.WarnLevel {
		level = slog.LevelDebug
	}
	log.LogAttrs(context.Background(), level, "registry library", attrs...)
	return nil
}

// expected says whether an error code is part of a client's normal questions
// ("do you have this?") and so no news.
func expected(code string) bool {
	switch code {
	case "blob unknown", "manifest unknown", "name unknown", "repository name not known to registry", "authentication required":
		return true
	}
	return false
}
