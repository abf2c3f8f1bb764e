package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes tables for people.
func (r *Result) Print(w io.Writer) error {
	fmt.Fprintf(w, "\nMedian of %d rounds, in brackets the range; %d cores, %s.\n", r.Rounds, r.Cores, r.FileSystem)
	for i := range r.Throughput {
		if err := r.Throughput[i].print(w); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	if len(r.Latency) > 0 {
		if err := r.printLatency(w); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	fmt.Fprintln(w, "\nOn the disk before its 250:")
	for _, name := range slices.Sorted(maps.Keys(r.Synced)) {
		fmt.Fprintf(w, "  %s: %s\n", name, r.Synced[name])
	}
	_, err := fmt.Fprintln(w)
	return err
}

func (t *Throughput) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s; %d messages, %d sessions\n", t.What, t.Messages, t.Sessions)
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "  \tmsg/s\t\tagainst\tmsg/s\t\tCPU\tprogram\tCPU s/1,000\tMB\tsender's CPU s")
	for _, m := range t.Systems {
		ratios, programs := slices.Sorted(maps.Keys(m.Of)), slices.Sorted(maps.Keys(m.CPU))
		for i := range max(1, len(ratios), len(programs)) {
			var name, rate, rates, source, ratio, share, shares, costs, program, cpu, memory string
			if i == 0 {
				name, source = m.System, fmt.Sprintf("%.2f", m.Source.Median)
				rate, rates = m.Rate.text("%.0f")
			}
			if i < len(ratios) {
				ratio = ratios[i]
				share, shares = m.Of[ratio].text("%.2f")
				if s, found := m.CPUOf[ratio]; found {
					costs, _ = s.text("%.2f")
				}
			}
			if i < len(programs) {
				program = programs[i]
				cpu = fmt.Sprintf("%.2f", m.CPU[program].Median)
				memory = fmt.Sprint(m.Memory[program] >> 20)
			}
			fmt.Fprintf(out, "  %s\n", strings.Join([]string{name, rate, rates, ratio, share, shares, costs, program, cpu, memory, source}, "\t"))
		}
	}
	return out.Flush()
}

func (s Spread) text(format string) (median, lowHigh string) {
	return fmt.Sprintf(format, s.Median), fmt.Sprintf("("+format+"–"+format+")", s.Low, s.High)
}

func (r *Result) printLatency(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, name := range slices.Sorted(maps.Keys(r.Latency)) {
		d := r.Latency[name]
		if i == 0 {
			fmt.Fprintf(w, "\nmilliseconds at %.0f messages a second, %d kB, %d kept sessions\n", d.Rate, d.Bytes>>10, d.Sessions)
			fmt.Fprintln(out, "  \tp50\tp90\tp99\tmost")
		}
		for _, l := range []struct {
			what string
			p    Percentiles
		}{{"dot to the receiver's 250", d.Dot}, {"due to the receiver's 250", d.Due}, {"dot to the relay's 250", d.Accept}} {
			fmt.Fprintf(out, "  %s, %s\t%.1f\t%.1f\t%.1f\t%.1f\n", name, l.what, l.p.P50, l.p.P90, l.p.P99, l.p.Max)
		}
	}
	return out.Flush()
}
