declare module "*?packed" {
  /** Address of the file, packed by gzip. */
  const url: string;
  export default url;
}
