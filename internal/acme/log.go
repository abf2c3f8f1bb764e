package acme

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// bridge writes certmagic's log into ours. What it tells in the course of things
// is for debugging; its errors come up with what they spoil.
type bridge struct {
	log    *slog.Logger
	fields []zapcore.Field
}

var _ zapcore.Core = bridge{}

func level(l zapcore.Level) slog.Level {
	if l >= zapcore.WarnLevel {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (b bridge) Enabled(l zapcore.Level) bool {
	return b.log.Enabled(context.TODO(), level(l)) // drain: nothing is waited for
}

func (b bridge) With(fields []zapcore.Field) zapcore.Core {
	return bridge{b.log, append(append([]zapcore.Field(nil), b.fields...), fields...)}
}

func (b bridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return ce.AddCore(e, b)
	}
	return ce
}

func (b bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field(nil), b.fields...), fields...) {
		f.AddTo(enc)
	}
	attrs := make([]any, 0, len(enc.Fields))
	for name, v := range enc.Fields {
		attrs = append(attrs, slog.Any(name, v))
	}
	b.log.Log(context.TODO(), level(e.Level), "acme: "+e.Message, attrs...) // drain: nothing is waited for
	return nil
}

func (bridge) Sync() error { return nil }
