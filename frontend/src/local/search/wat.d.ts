/** WebAssembly text, assembled by the build: its bytes in base64. */
declare module "*.wat" {
  const base64: string;
  export default base64;
}
