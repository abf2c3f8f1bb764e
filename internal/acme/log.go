package acme

import (
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

// Enabled leaves it to the log what is written: there are few lines.
func (bridge) Enabled(zapcore.Level) bool { return true }

func (b bridge) With(fields []zapcore.Field) zapcore.Core {
	return bridge{b.log, append(append([]zapcore.Field(nil), b.fields...), fields...)}
}

func (b bridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, b)
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
	write := b.log.Debug
	if e.Level >= zapcore.WarnLevel {
		write = b.log.Info
	}
	write("acme: "+e.Message, attrs...)
	return nil
}

func (bridge) Sync() error { return nil }
