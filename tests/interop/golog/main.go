// Reads and writes logs with golang.org/x/mod/sumdb, which knows nothing of this project.
//
//	golog read DIR VKEY [INDEX...]   verify the checkpoint and the tiles; prove each entry, and
//	                                 that every smaller size is the beginning; write the proofs
//	golog write DIR NAME COUNT       write a log with a key of its own; print the verifier key
package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// tiles reads tiles as tlog-tiles names them: without the height that Go's own paths have.
type tiles struct{ dir string }

func path(dir string, t tlog.Tile) string {
	name := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", height))
	return filepath.Join(dir, "tile", name)
}

func (t tiles) Height() int { return height }

func (t tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range want {
		data, err := os.ReadFile(path(t.dir, tile))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// verifier checks the two kinds of signature that sumdb/note does not have.
type verifier struct {
	name  string
	hash  uint32
	check func(msg, sig []byte) bool
}

func (v verifier) Name() string                { return v.name }
func (v verifier) KeyHash() uint32             { return v.hash }
func (v verifier) Verify(msg, sig []byte) bool { return v.check(msg, sig) }

func newVerifier(vkey string) note.Verifier {
	parts := strings.SplitN(vkey, "+", 3)
	key, err := base64.StdEncoding.DecodeString(parts[2])
	must(err)
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	must(err)
	switch key[0] {
	case 2:
		public, err := x509.ParsePKIXPublicKey(key[1:])
		must(err)
		sum := sha256.Sum256(key[1:])
		if binary.BigEndian.Uint32(sum[:]) != uint32(hash) {
			log.Fatal("the key ID does not follow")
		}
		return verifier{parts[0], uint32(hash), func(msg, sig []byte) bool {
			digest := sha256.Sum256(msg)
			return ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], sig)
		}}
	case 4:
		return verifier{parts[0], uint32(hash), func(msg, sig []byte) bool {
			time := binary.BigEndian.Uint64(sig)
			text := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, msg)
			return ed25519.Verify(key[1:], []byte(text), sig[8:])
		}}
	}
	known, err := note.NewVerifier(vkey)
	must(err)
	return known
}

func read(dir string, vkeys string, indexes []string) {
	data, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(err)
	var known []note.Verifier
	for _, vkey := range strings.Split(vkeys, ",") {
		known = append(known, newVerifier(vkey))
	}
	opened, err := note.Open(data, note.VerifierList(known...))
	must(err)
	if len(opened.Sigs) != len(known) {
		log.Fatalf("%d of %d keys have signed", len(opened.Sigs), len(known))
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	root, err := tlog.ParseHash(lines[2])
	must(err)
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles{dir})
	for _, text := range indexes {
		index, err := strconv.ParseInt(text, 10, 64)
		must(err)
		proof, err := tlog.ProveRecord(size, index, hashes)
		must(err)
		stored, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		must(err)
		must(tlog.CheckRecord(proof, size, root, index, stored[0]))
		fmt.Printf("record %d %s", index, stored[0])
		for _, hash := range proof {
			fmt.Printf(" %s", hash)
		}
		fmt.Println()
		if index == 0 {
			continue
		}
		old, err := tlog.TreeHash(index, hashes)
		must(err)
		grown, err := tlog.ProveTree(size, index, hashes)
		must(err)
		must(tlog.CheckTree(grown, size, root, index, old))
		fmt.Printf("tree %d %s", index, old)
		for _, hash := range grown {
			fmt.Printf(" %s", hash)
		}
		fmt.Println()
	}
}

// memory keeps every hash of a log under its index.
type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, index := range indexes {
		found = append(found, m[index])
	}
	return found, nil
}

func write(dir, name string, count int64) {
	var hashes memory
	for n := int64(0); n < count; n++ {
		more, err := tlog.StoredHashes(n, []byte(fmt.Sprintf("entry %d", n)), hashes)
		must(err)
		hashes = append(hashes, more...)
	}
	for _, tile := range tlog.NewTiles(height, 0, count) {
		data, err := tlog.ReadTileData(tile, hashes)
		must(err)
		file := path(dir, tile)
		must(os.MkdirAll(filepath.Dir(file), 0o755))
		must(os.WriteFile(file, data, 0o644))
	}
	root, err := tlog.TreeHash(count, hashes)
	must(err)
	private, vkey, err := note.GenerateKey(rand.Reader, name)
	must(err)
	signer, err := note.NewSigner(private)
	must(err)
	text := fmt.Sprintf("%s\n%d\n%s\n", name, count, root)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	must(err)
	must(os.WriteFile(filepath.Join(dir, "checkpoint"), signed, 0o644))
	fmt.Println(vkey)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(0)
	switch os.Args[1] {
	case "read":
		read(os.Args[2], os.Args[3], os.Args[4:])
	case "write":
		count, err := strconv.ParseInt(os.Args[4], 10, 64)
		must(err)
		write(os.Args[2], os.Args[3], count)
	}
}
