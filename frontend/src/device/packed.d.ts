declare module "*?packed" {
  /** URL of the file, packed by gzip. */
  const url: string;
  export default url;
}
