package emulator

import (
	"encoding/json"
	"net/http"

	"github.com/coder/websocket"
)

// getFeed takes the live lines of a job over a websocket. They may be dropped under load; the uploaded
// log is the truth.
func (e *Emulator) getFeed(w http.ResponseWriter, r *http.Request, j *job) {
	if r.PathValue("job") != j.def.ID {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Accept has answered
	}
	e.feeds.Add(1)
	defer e.feeds.Done()
	defer conn.CloseNow()
	conn.SetReadLimit(maxBody)
	for {
		_, frame, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		var in struct {
			Value  []string `json:"value"`
			StepID string   `json:"stepId"`
		}
		if json.Unmarshal(frame, &in) != nil {
			continue
		}
		e.mu.Lock()
		if j.phase == running {
			l := &j.setup
			if in.StepID != "" && in.StepID != j.def.ID {
				l = &j.step(in.StepID).log
			}
			for _, line := range in.Value {
				l.live.WriteString(line)
				l.live.WriteByte('\n')
			}
			e.changed()
		}
		e.mu.Unlock()
	}
}
