// Command workload is a program that has its database's password from Safe. It
// follows the password's changes, and never keeps it anywhere but in memory.
//
// What stands for the database here only says that it was given a password.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run follows the secrets until ctx ends.
func run(ctx context.Context) error {
	var db database
	err := workload.Watch(ctx, func(s *workload.Secrets) {
		// The values are ours. What needs them has them when this returns.
		defer s.Wipe()
		password, ok := s.Get("db", "password")
		if !ok {
			log.Print("there is no password yet: seal one as key password of EncryptedSecret db")
			return
		}
		db.reconnect(password)
	})
	if errors.Is(err, context.Canceled) {
		return nil // stopped as asked
	}
	return err
}

// A database is where a real program has its connections.
type database struct{ connected bool }

// reconnect opens connections with a new password. One that is the same would
// be the moment to do nothing. Nothing of a password belongs in a log, a hash no
// more than the rest: a short one could be guessed from it.
func (db *database) reconnect(password []byte) {
	verb := "connected"
	if db.connected {
		verb = "connected anew"
	}
	db.connected = true
	log.Printf("%s with the password that Safe has now, of %d bytes", verb, len(password))
}
