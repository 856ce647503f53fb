package mongo

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	archivePage  = 500      // documents that are inserted together
	archiveBytes = 8 << 20  // and their size, but for one
	archiveMost  = 20 << 20 // a document is smaller
	restoringID  = "restoring"
)

// Archive gives what a database holds as it is stored, collection by collection: write writes its documents one behind the
// other, as mongodump's files have them. Nobody may write meanwhile: the collections are read one after the other.
func (c *Clusters) Archive(ctx context.Context, url, database string, put func(collection string, write func(io.Writer) error) error) error {
	return c.on(ctx, url, database, func(d *driver.Database) error {
		names, err := collections(ctx, d)
		if err != nil {
			return err
		}
		for _, name := range names {
			err := put(name, func(w io.Writer) error {
				cur, err := d.Collection(name).Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: idKey, Value: 1}}))
				if err != nil {
					return err
				}
				defer func() { _ = cur.Close(context.WithoutCancel(ctx)) }()
				for cur.Next(ctx) {
					if _, err := w.Write(cur.Current); err != nil {
						return err
					}
				}
				return cur.Err()
			})
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}

// Unarchive puts documents that Archive wrote into a collection, and tells how many. What the engine keeps of how a database
// was made is left out: it is made anew, with its indexes, when the engine opens it.
func (c *Clusters) Unarchive(ctx context.Context, url, database, collection string, r io.Reader) (n int, err error) {
	err = c.on(ctx, url, database, func(d *driver.Database) error {
		in := bufio.NewReaderSize(r, 1<<16)
		var page []any
		size := 0
		flush := func() error {
			if len(page) == 0 {
				return nil
			}
			_, err := d.Collection(collection).InsertMany(ctx, page)
			n += len(page)
			page, size = page[:0], 0
			return err
		}
		for {
			doc, err := nextDoc(in)
			if errors.Is(err, io.EOF) {
				return flush()
			}
			if err != nil {
				return err
			}
			if collection == ownColl {
				if id, _ := doc.Lookup(idKey).StringValueOK(); id != numbersID {
					continue
				}
				_, err := d.Collection(ownColl).ReplaceOne(ctx, bson.D{{Key: idKey, Value: numbersID}}, doc, options.Replace().SetUpsert(true))
				if err != nil {
					return err
				}
				n++
				continue
			}
			if size+len(doc) > archiveBytes || len(page) == archivePage {
				if err := flush(); err != nil {
					return err
				}
			}
			page, size = append(page, doc), size+len(doc)
		}
	})
	return n, err
}

// nextDoc reads one document; io.EOF at the end.
func nextDoc(r *bufio.Reader) (bson.Raw, error) {
	head, err := r.Peek(4)
	if len(head) == 0 && errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("store/mongo: half a document: %w", io.ErrUnexpectedEOF)
	}
	size := binary.LittleEndian.Uint32(head)
	if size < 5 || size > archiveMost {
		return nil, fmt.Errorf("store/mongo: a document of %d bytes", size)
	}
	doc := make(bson.Raw, size)
	if _, err := io.ReadFull(r, doc); err != nil {
		return nil, fmt.Errorf("store/mongo: half a document: %w", io.ErrUnexpectedEOF)
	}
	return doc, doc.Validate()
}

// Holds gives the collections of a database that hold something, beside what the engine keeps for itself.
func (c *Clusters) Holds(ctx context.Context, url, database string) (names []string, err error) {
	err = c.on(ctx, url, database, func(d *driver.Database) error {
		all, err := collections(ctx, d)
		if err != nil {
			return err
		}
		for _, name := range all {
			if name == ownColl {
				continue
			}
			switch err := d.Collection(name).FindOne(ctx, bson.D{}).Err(); {
			case err == nil:
				names = append(names, name)
			case !errors.Is(err, driver.ErrNoDocuments):
				return err
			}
		}
		return nil
	})
	return names, err
}

// SetRestoring says that what a database holds is not whole yet, or that it is; Restoring tells.
func (c *Clusters) SetRestoring(ctx context.Context, url, database string, on bool) error {
	return c.on(ctx, url, database, func(d *driver.Database) error {
		own := d.Collection(ownColl)
		if !on {
			_, err := own.DeleteOne(ctx, bson.D{{Key: idKey, Value: restoringID}})
			return err
		}
		_, err := own.ReplaceOne(ctx, bson.D{{Key: idKey, Value: restoringID}}, bson.D{{Key: idKey, Value: restoringID}}, options.Replace().SetUpsert(true))
		return err
	})
}

// Restoring tells whether what a database holds is not whole yet.
func (c *Clusters) Restoring(ctx context.Context, url, database string) (is bool, err error) {
	err = c.on(ctx, url, database, func(d *driver.Database) error {
		err := d.Collection(ownColl).FindOne(ctx, bson.D{{Key: idKey, Value: restoringID}}).Err()
		is = err == nil
		if errors.Is(err, driver.ErrNoDocuments) {
			return nil
		}
		return err
	})
	return is, err
}

func collections(ctx context.Context, d *driver.Database) ([]string, error) {
	names, err := d.ListCollectionNames(ctx, bson.D{})
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "system.") })
	slices.Sort(names)
	return names, err
}

// on runs fn with a database as it is, without its kinds.
func (c *Clusters) on(ctx context.Context, url, database string, fn func(d *driver.Database) error) error {
	cl, err := c.cluster(url)
	if err != nil {
		return err
	}
	defer cl.release()
	client, err := cl.begin(ctx)
	if err != nil {
		return err
	}
	defer cl.end()
	return fail(ctx, fn(client.Database(database)))
}
