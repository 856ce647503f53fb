package mongo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// Owner is whose a database is: a client's of an installation; the zero Owner is an installation's services. Names are made of prefixes and codes, so two can come to the
// same name; the mark in the database tells them apart.
type Owner struct {
	Installation string `bson:"installation"`
	Client       string `bson:"client"`
}

// ForeignError says that a database is another's.
type ForeignError struct {
	Database    string
	Wanted, Has Owner
}

func (e *ForeignError) Error() string {
	switch {
	case e.Has == Owner{}:
		return fmt.Sprintf("the database %s is a services database", e.Database)
	case e.Wanted.Installation == e.Has.Installation:
		return fmt.Sprintf("the database %s belongs to client %s", e.Database, e.Has.Client)
	}
	return fmt.Sprintf("the database %s belongs to client %s of another installation", e.Database, e.Has.Client)
}

// ownerID is the document of ownColl that tells whose a database is.
const ownerID = "owner"

// OpenOwned is Open for an owner: a database that is nobody's yet becomes theirs, another's is a ForeignError and stays as it
// is. It costs one read more.
func (c *Clusters) OpenOwned(ctx context.Context, url, database string, schemas []store.Schema, by Owner) (*DB, error) {
	return c.openBy(ctx, url, database, schemas, &by)
}

// own makes a database an owner's that is nobody's.
func own(ctx context.Context, d *driver.Database, by Owner) error {
	has, err := readOwner(ctx, d)
	if err == nil && has == nil {
		_, err = d.Collection(ownColl).UpdateOne(ctx, bson.D{{Key: idKey, Value: ownerID}}, bson.D{{Key: "$setOnInsert", Value: by}}, options.UpdateOne().SetUpsert(true))
		if err == nil || isDuplicate(err) { // another may have been first
			has, err = readOwner(ctx, d)
		}
	}
	switch {
	case err != nil:
		return err
	case has == nil:
		return errDropped
	case *has != by:
		return &ForeignError{d.Name(), by, *has}
	}
	return nil
}

// readOwner gives a database's owner; nil: it has none.
func readOwner(ctx context.Context, d *driver.Database) (*Owner, error) {
	var has Owner
	err := d.Collection(ownColl).FindOne(ctx, bson.D{{Key: idKey, Value: ownerID}}).Decode(&has)
	if errors.Is(err, driver.ErrNoDocuments) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return &has, err
}

// Owned tells whether a database has an owner, without making it anybody's; a ForeignError: one that is not by.
func (c *Clusters) Owned(ctx context.Context, url, database string, by Owner) (is bool, err error) {
	err = c.on(ctx, url, database, func(d *driver.Database) error {
		has, err := readOwner(ctx, d)
		if is = err == nil && has != nil; is && *has != by {
			return &ForeignError{database, by, *has}
		}
		return err
	})
	return is, err
}

// CheckName tells what is wrong with a database's name.
func CheckName(database string) error {
	switch {
	case len(database) > MaxName:
		return fmt.Errorf("store/mongo: the database's name would be %q: %d bytes, and MongoDB takes %d", database, len(database), MaxName)
	case database == "", strings.ContainsAny(database, "/\\. \"$*<>:|?\x00"):
		return fmt.Errorf("store/mongo: %q is no name of a database", database)
	}
	return nil
}

// MaxName is how many bytes a database's name may have.
const MaxName = 63
