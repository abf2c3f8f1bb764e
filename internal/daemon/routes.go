package daemon

import (
	"bufio"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"postrider/internal/config"
	"postrider/internal/deliver"
	"postrider/internal/smtpclient"
)

var tlsModes = map[string]smtpclient.TLSMode{"opportunistic": smtpclient.Opportunistic, "none": smtpclient.Never,
	"require": smtpclient.Required, "dane": smtpclient.Opportunistic, "unpoliced": smtpclient.Opportunistic, "implicit": smtpclient.Implicit}

var policyUses = map[string]deliver.PolicyUse{"dane": deliver.OnlyDANE, "unpoliced": deliver.Ignored}

// routes reads the files that the routes name.
func routes(c config.Config) (deliver.Routes, error) {
	var out deliver.Routes
	for i, r := range c.Route {
		route := deliver.Route{Domain: r.Domain, Port: c.Delivery.Port, TLS: tlsModes[r.TLS], Policy: policyUses[r.TLS]}
		for _, p := range r.Private {
			route.Private = append(route.Private, netip.Prefix(p))
		}
		if r.To != "mx" {
			host, port, err := net.SplitHostPort(r.To)
			if err != nil {
				return nil, fmt.Errorf("route[%d].to: %w", i, err)
			}
			if route.Port, err = strconv.Atoi(port); err != nil {
				return nil, fmt.Errorf("route[%d].to: %w", i, err)
			}
			route.Host = host
		}
		if r.User != "" {
			password, err := firstLine(r.Password)
			if err != nil {
				return nil, fmt.Errorf("route[%d].password_file: %w", i, err)
			}
			route.Auth = &smtpclient.Auth{User: r.User, Password: password}
		}
		if r.CA != "" {
			var err error
			if route.Roots, err = roots(r.CA); err != nil {
				return nil, fmt.Errorf("route[%d].ca: %w", i, err)
			}
		}
		out = append(out, route)
	}
	return out, nil
}

// roots reads certificates to trust.
func roots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}

func firstLine(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Scan()
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	line := strings.TrimRight(s.Text(), "\r")
	if line == "" {
		return "", fmt.Errorf("the first line of %s is empty", file)
	}
	return line, nil
}
