package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"postrider/internal/message"
	"postrider/internal/queue"
	"postrider/internal/relay"
)

// Renderer makes of a message what one of its recipients gets.
type Renderer interface {
	// Render gives what goes to the recipient of d in place of the content of m. It
	// does not change that content; where it makes another body, it writes it to
	// buf, which is empty. What it gives comes before the conversion to 7 bits and
	// the signature, and is the same at each attempt, as far as the settings are.
	// An error defers the delivery.
	Render(ctx context.Context, m *relay.Message, d *relay.Delivery, content relay.Content, buf *message.Buffer) (Rendering, error)
}

// Rendering is what one recipient gets. With its zero value that is what was
// accepted.
type Rendering struct {
	// Fields are header fields that go in front, each with its line end, in ASCII.
	// Those that DKIM signs are signed.
	Fields []byte
	// Content in place of the accepted one; nil: that one.
	Content relay.Content
}

// rendered is what is to be converted and signed.
type rendered struct {
	Content relay.Content
	Own     bool // of this delivery alone
}

// render asks the Renderer, where there is one.
func (d *Dispatcher) render(ctx context.Context, it *queue.Item, content relay.Content, buf *message.Buffer) (rendered, error) {
	if d.config.Renderer == nil {
		return rendered{Content: content}, nil
	}
	r, err := d.config.Renderer.Render(ctx, it.Message, it.Delivery, content, buf)
	if err != nil {
		var local *localError
		var file *fs.PathError
		if errors.As(err, &local) || errors.As(err, &file) {
			return rendered{}, &localError{err}
		}
		return rendered{}, &signError{fmt.Errorf("make the recipient's copy: %w", err)}
	}
	out := rendered{Content: content, Own: r.Content != nil || len(r.Fields) > 0}
	if r.Content != nil {
		out.Content = r.Content
	}
	if len(r.Fields) > 0 {
		out.Content = &fronted{r.Fields, out.Content}
	}
	return out, nil
}

// fronted is content with fields in front of it, without a copy of it.
type fronted struct {
	fields  []byte
	content relay.Content
}

func (f *fronted) Size() int64                  { return int64(len(f.fields)) + f.content.Size() }
func (f *fronted) Open() (io.ReadCloser, error) { return behind(f.fields, f.content) }

// behind opens content with fields in front of it, without a copy of it.
func behind(fields []byte, content relay.Content) (io.ReadCloser, error) {
	rc, err := content.Open()
	if err != nil || len(fields) == 0 {
		return rc, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(fields), rc), rc}, nil
}
