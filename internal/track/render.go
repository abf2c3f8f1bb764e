package track

import (
	"context"

	"postrider/internal/deliver"
	"postrider/internal/message"
	"postrider/internal/relay"
)

// Fields adds header fields to what a recipient gets.
type Fields interface {
	// Fields gives those of a delivery, each with its line end, in ASCII. base is
	// where links of the message lead to, "https://track.example.com"; empty: there
	// can be none. An error defers the delivery.
	Fields(ctx context.Context, m *relay.Message, d *relay.Delivery, base string) ([]byte, error)
}

// Renderer makes of a message what each recipient gets.
type Renderer struct {
	hosts  *Hosts
	fields []Fields
}

// NewRenderer makes a Renderer.
func NewRenderer(h *Hosts, fields ...Fields) *Renderer { return &Renderer{hosts: h, fields: fields} }

// Render is deliver.Renderer.
func (r *Renderer) Render(ctx context.Context, m *relay.Message, d *relay.Delivery, content relay.Content, buf *message.Buffer) (out deliver.Rendering, err error) {
	base, _, err := r.hosts.Base(ctx, m)
	if err != nil {
		return out, err
	}
	for _, f := range r.fields {
		more, err := f.Fields(ctx, m, d, base)
		if err != nil {
			return out, err
		}
		out.Fields = append(out.Fields, more...)
	}
	return out, nil
}
