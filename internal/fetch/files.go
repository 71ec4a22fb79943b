package fetch

// WriteFiles makes dir hold exactly these secrets, as dir/OBJECT/KEY, mode
// 0400: see [Directory.Write].
func (s *Secrets) WriteFiles(dir string) error {
	d, err := Open(Target{Dir: dir})
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Write(s)
	return err
}
