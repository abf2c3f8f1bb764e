package acme

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// Files keeps what all nodes share; store.DB does.
type Files interface {
	PutFile(ctx context.Context, name string, content []byte) error
	File(ctx context.Context, name string) (*store.File, error)
	Files(ctx context.Context, prefix string) ([]*store.File, error)
	RemoveFile(ctx context.Context, name string) error
	Locks
}

// Locks are locks between nodes, by the store's clock.
type Locks interface {
	Lock(ctx context.Context, name, owner string, lasts time.Duration) (bool, error)
	Unlock(ctx context.Context, name, owner string) error
}

// Box seals secrets; seal.Box does.
type Box interface {
	Seal(plain []byte, context string) []byte
	Open(sealed []byte, context string) ([]byte, error)
}

// folder is where the files stand in the store.
const folder = "acme/"

const (
	// lease is how long a lock outlives a node that dies with it.
	lease = 2 * time.Minute
	// lockPoll is how often a lock that somebody has is asked for.
	lockPoll = time.Second
)

// storage is the store as certmagic knows one. Everything in it is sealed: keys
// of certificates and of the account are among it.
type storage struct {
	files Files
	box   Box

	mu     sync.Mutex
	owners map[string]string // of the locks that this process has
}

var (
	_ certmagic.Storage          = (*storage)(nil)
	_ certmagic.LockLeaseRenewer = (*storage)(nil)
)

func newStorage(files Files, box Box) *storage {
	return &storage{files: files, box: box, owners: map[string]string{}}
}

func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	return s.files.PutFile(ctx, folder+key, s.box.Seal(value, folder+key))
}

func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	f, err := s.files.File(ctx, folder+key)
	if err != nil {
		return nil, missing(err)
	}
	value, err := s.box.Open(f.Bytes, folder+key)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return value, nil
}

// missing is the store's error as certmagic expects it.
func missing(err error) error {
	if err != nil && relay.CodeOf(err) == relay.NotFound {
		return fs.ErrNotExist
	}
	return err
}

// Delete removes a file, or all below a folder.
func (s *storage) Delete(ctx context.Context, key string) error {
	names, err := s.below(ctx, key)
	if err != nil {
		return err
	}
	for _, name := range append(names, key) {
		if err := missing(s.files.RemoveFile(ctx, folder+name)); err != nil && err != fs.ErrNotExist {
			return err
		}
	}
	return nil
}

// below lists the files in a folder and its folders.
func (s *storage) below(ctx context.Context, key string) ([]string, error) {
	if key = strings.Trim(key, "/"); key != "" {
		key += "/"
	}
	files, err := s.files.Files(ctx, folder+key)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, strings.TrimPrefix(f.Name, folder))
	}
	return names, nil
}

func (s *storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List gives the names in a folder, with those of its folders.
func (s *storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	names, err := s.below(ctx, path)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fs.ErrNotExist
	}
	path = strings.Trim(path, "/")
	var out []string
	for _, name := range names {
		rest := strings.Trim(strings.TrimPrefix(name, path), "/")
		at := path
		for part := range strings.SplitSeq(rest, "/") {
			at = strings.Trim(at+"/"+part, "/")
			out = append(out, at)
			if !recursive {
				break
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	f, err := s.files.File(ctx, folder+key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: f.Modified, Size: int64(len(f.Bytes)), IsTerminal: true}, nil
	}
	if err = missing(err); err != fs.ErrNotExist {
		return certmagic.KeyInfo{}, err
	}
	names, err := s.below(ctx, key)
	if err == nil && len(names) == 0 {
		err = fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key}, err
}

// Lock waits for a lock. Each holder has a name of its own, as two parts of one
// process may want the same lock.
func (s *storage) Lock(ctx context.Context, name string) error {
	owner := rand.Text()
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		mine, err := s.files.Lock(ctx, folder+name, owner, lease)
		if err != nil {
			return err
		}
		if mine {
			s.mu.Lock()
			s.owners[name] = owner
			s.mu.Unlock()
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *storage) owner(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owners[name]
}

func (s *storage) Unlock(ctx context.Context, name string) error {
	owner := s.owner(name)
	err := s.files.Unlock(ctx, folder+name, owner)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners[name] == owner {
		delete(s.owners, name)
	}
	return err
}

func (s *storage) RenewLockLease(ctx context.Context, name string, lasts time.Duration) error {
	mine, err := s.files.Lock(ctx, folder+name, s.owner(name), max(lasts, lease))
	if err == nil && !mine {
		err = fmt.Errorf("the lock %s was lost", name)
	}
	return err
}
